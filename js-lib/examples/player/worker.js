import { answerRanges } from "@openstorage/client/range-worker";

// An app writes its gateway here, such as https://icp0.io. This example's page names the local network's.
answerRanges({ gateway: new URL(location.href).searchParams.get("gateway") });
