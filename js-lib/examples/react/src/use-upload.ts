/** An upload as React state. */

import { type BlobReference, type OpenStorage, type Progress, type Upload, type UploadOptions } from "@openstorage/client";
import { useCallback, useEffect, useRef, useState } from "react";

interface State {
  readonly upload?: Upload;
  readonly progress?: Progress;
  readonly reference?: BlobReference;
  readonly error?: Error;
}

export function useUpload(storage: OpenStorage, options: Pick<UploadOptions, "accessorIds">) {
  const [state, setState] = useState<State>({});
  const page = useRef(new AbortController());

  // Leaving the page stops the upload; the same file goes on from there, within a day.
  useEffect(() => {
    const controller = new AbortController();
    page.current = controller;
    return () => controller.abort();
  }, []);

  const start = useCallback(
    async (file: File) => {
      const upload = storage.upload(file, { ...options, signal: page.current.signal });
      setState({ upload });
      try {
        for await (const progress of upload) setState({ upload, progress });
        const reference = await upload.done;
        setState({ upload, progress: upload.progress, reference });
        return reference;
      } catch (error) {
        setState({ upload, error: error as Error });
        return undefined;
      }
    },
    [storage, options],
  );
  return { ...state, start };
}
