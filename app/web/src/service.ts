/* What the page asks of the service. */

export const VARIANTS = ["baseline", "optimised"] as const;
export type Variant = (typeof VARIANTS)[number];

export interface Prediction {
  rank: number;
  index: number;
  label: string;
  probability: number;
  heat_map?: HeatMap; // where the score comes from: logit = bias + the mean of the values
}

export interface HeatMap {
  logit: number;
  bias: number;
  height: number;
  width: number;
  values: number[]; // row by row
}

export interface Model {
  name: string;
  // A photo is scaled to cover a frame in the proportions of `size` with `resize` as shorter side; the middle `size` is seen.
  input: { size: number | [number, number]; resize: number };
  variants: { name: string; backend: string; isa: string; explains: boolean; note?: string }[];
}

export interface Timing {
  decode_ms: number;
  queue_ms: number;
  compute_ms: number;
  batch_size: number;
}

export interface Answer {
  predictions: Prediction[];
  timing: Timing;
}

/** A sentence for people: the service's own where it gave one. */
export class ServiceError extends Error {}

/** Classify a photo with one variant; `progress` hears the share of it that is sent, 0 to 1. */
export function classify(
  photo: Blob,
  variant: Variant,
  progress: (share: number) => void,
  explain = false,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much is sent
    request.open("POST", `/v1/classify${explain ? "?explain=1" : ""}`);
    request.setRequestHeader("X-Model-Variant", variant);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "text";
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    };
    request.onerror = () => reject(new ServiceError("The service does not answer. Is it still running?"));
    request.onload = () => {
      const body = parse(request.responseText);
      const result = body?.results?.[0];
      if (request.status === 200 && result) resolve(result);
      else reject(new ServiceError(body?.error ?? `The service answered with status ${request.status}.`));
    };
    request.send(photo);
  });
}

/** A JSON document of the service; null where there is none. */
export async function fetchDocument(path: string): Promise<any> {
  try {
    const answer = await fetch(path, { headers: { Accept: "application/json" } });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

function parse(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
