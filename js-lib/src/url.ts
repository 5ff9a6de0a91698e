/** The URL under which a bucket serves a blob. */

import { type BlobId, parseBlobId } from "./blob.js";
import { checkOptions, OpenStorageError } from "./errors.js";
import { TOKEN_CHARS_MAX } from "./limits.js";

/** A principal: its text, or an object that knows it, such as a `Principal` of the IC's SDK. */
export type PrincipalLike = string | { toText(): string };

/**
 * - `subdomain`: `https://{bucket}.{gateway}/{accessor}/{blob}?token=…`, the usual one: every bucket
 *   is an origin of its own.
 * - `query`: `http://{gateway}/{accessor}/{blob}?canisterId={bucket}&token=…`, where names below the
 *   gateway's do not resolve.
 */
export type UrlForm = "subdomain" | "query";

/** A blob as seen through one accessor. */
export interface BlobUrlParts {
  readonly blobId: BlobId;
  /** The canister that holds the blob. */
  readonly bucket: PrincipalLike;
  /** Whose blob it is to see: the chat, for a picture in a chat. */
  readonly accessorId: PrincipalLike;
  /** The read token that the accessor's issuer gave. Whoever has the URL has it too. */
  readonly token: string;
}

export interface BlobUrlOptions {
  /** The HTTP gateway's origin, such as `https://icp0.io` or `http://localhost:4943`. */
  readonly gateway: string | URL;
  /** Without it: `query` where the gateway's host is an IP address, else `subdomain`. */
  readonly form?: UrlForm;
  /**
   * For players, which jump about, and for tools that go on where they ended: every range of bytes is served exactly, and
   * nothing of it is certified. Without it gateways verify every byte of an answer to a request without a range.
   */
  readonly seekable?: boolean;
}

/** Where a bucket serves any range. */
const RANGES = "/m";

/**
 * The blob's URL, for an `<img>`, a `<video>` or a link. Nothing is looked up.
 *
 * @throws `InvalidBlobId`, `InvalidPrincipal`, `InvalidToken`; `InvalidGateway` for what is not an
 * http(s) origin, and for an IP address in the `subdomain` form
 */
export function blobUrl(parts: BlobUrlParts, options: BlobUrlOptions): string {
  checkOptions(parts);
  checkOptions(options);
  const blobId = parseBlobId(parts.blobId);
  const bucket = principalText(parts.bucket, "bucket");
  const accessorId = principalText(parts.accessorId, "accessorId");
  checkToken(parts.token);

  const url = gatewayOrigin(options.gateway);
  const isAddress = isIpAddress(url.hostname);
  const form = options.form ?? (isAddress ? "query" : "subdomain");
  url.pathname = `${options.seekable ? RANGES : ""}/${accessorId}/${blobId}`;
  if (form === "subdomain") {
    if (isAddress) throw invalidGateway(options.gateway, "an IP address has no subdomains");
    url.hostname = `${bucket}.${url.hostname}`;
  } else {
    url.searchParams.set("canisterId", bucket);
  }
  url.searchParams.set("token", parts.token);
  return url.href;
}

/** At most 29 bytes and a checksum in base32: up to 53 characters, in groups of five. */
const PRINCIPAL = /^(?=.{1,63}$)[a-z2-7]{5}(-[a-z2-7]{5})*(-[a-z2-7]{1,5})?$/;

/** The checksum inside is the gateway's to check: this keeps anything else out of the URL. */
function principalText(principal: PrincipalLike, argument: string): string {
  const text = typeof principal === "string" ? principal : String(principal?.toText?.() ?? "");
  if (PRINCIPAL.test(text)) return text;
  const message = `${argument} is not the text of a principal`;
  throw new OpenStorageError("InvalidPrincipal", message, { argument });
}

/** @throws `InvalidToken` */
export function checkToken(token: string): string {
  const isToken = typeof token === "string" && /^[A-Za-z0-9_-]+$/.test(token) && token.length <= TOKEN_CHARS_MAX;
  if (!isToken) throw invalidToken();
  return token;
}

export function invalidToken(): OpenStorageError<"InvalidToken"> {
  // The token itself stays out of the message: messages end up in logs.
  const message = `an access token is base64url, at most ${TOKEN_CHARS_MAX} characters: pass it as the app's canister gave it`;
  return new OpenStorageError("InvalidToken", message, { max: TOKEN_CHARS_MAX });
}

function gatewayOrigin(gateway: string | URL): URL {
  const url = URL.canParse(String(gateway)) ? new URL(gateway) : undefined;
  if (url?.protocol !== "https:" && url?.protocol !== "http:") {
    throw invalidGateway(gateway, "it is not an http or https URL");
  }
  if (url.pathname !== "/" || url.search || url.hash || url.username || url.password) {
    throw invalidGateway(gateway, "it is more than an origin");
  }
  return url;
}

/** Of a host as `URL` writes it: IPv4 in four decimal parts, IPv6 in brackets. */
function isIpAddress(hostname: string): boolean {
  return hostname.startsWith("[") || /^\d+\.\d+\.\d+\.\d+$/.test(hostname);
}

function invalidGateway(gateway: string | URL, why: string): OpenStorageError<"InvalidGateway"> {
  const text = String(gateway);
  return new OpenStorageError("InvalidGateway", `${text} cannot be the gateway: ${why}`, {
    gateway: text,
  });
}
