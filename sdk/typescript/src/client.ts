import createFetchClient, { type Client } from "openapi-fetch";

import type { paths } from "./arm.js";
import { finished, OperationError } from "./operation.js";

/** A client of one server: every path of the document, typed, and what waits for the operations that requests begin. */
export interface Lifeboat {
  api: Client<paths>;
  wait(answer: Response): Promise<void>;
}

/** Makes a client. The address is that of the server, such as https://dr.example.org:8443. */
export function connect(address: string, token: string, signal?: AbortSignal): Lifeboat {
  const headers = { Authorization: `Bearer ${token}` };
  const limit = signal === undefined ? {} : { signal };
  return {
    api: createFetchClient<paths>({ baseUrl: address, headers, ...limit }),
    wait: (answer) => finished(answer, (url) => fetch(url, { headers, ...limit }), signal),
  };
}

/** The data of an answer that has some; what was refused is thrown. */
export function must<T>(answer: { data?: T; error?: { error: OperationError["error"] } }): T {
  if (answer.error !== undefined) throw new OperationError(answer.error.error);
  if (answer.data === undefined) throw new Error("the answer has no body");
  return answer.data;
}
