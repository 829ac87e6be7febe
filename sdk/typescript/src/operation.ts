import type { components } from "./arm.js";

type Status = components["schemas"]["OperationStatus"];
type Refusal = components["schemas"]["ErrorBody"];

/** What the server refused or could not do, with the ARM error as it was sent. */
export class OperationError extends Error {
  constructor(readonly error: Refusal) {
    super(`${error.code}: ${error.message}`);
  }
}

/**
 * Waits for the operation that an answer began, as its headers tell. An answer that began none is done at once.
 * Each wait is as long as the server asks for, and the signal ends it.
 */
export async function finished(answer: Response, fetch: (url: string) => Promise<Response>, signal?: AbortSignal): Promise<void> {
  const url = answer.headers.get("Azure-AsyncOperation");
  if (answer.status !== 202 || url === null) return;
  for (let last = answer; ; ) {
    await pause(Number(last.headers.get("Retry-After") ?? "1"), signal);
    last = await fetch(url);
    const status = (await last.json()) as Status;
    switch (status.status) {
      case "Succeeded":
        return;
      case "Failed":
      case "Canceled":
        throw new OperationError(status.error ?? { code: status.status, message: "the operation did not succeed" });
    }
  }
}

function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
