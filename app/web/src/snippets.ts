/* The same request from a shell and from programs, ready to paste. */

import { byId, make } from "./elements";

type Snippet = (origin: string, file: string) => string;

const SNIPPETS: Record<string, Snippet> = {
  curl: (origin, file) => `curl -H 'X-Model-Variant: optimised' --data-binary @'${file}' ${origin}/v1/classify`,
  Python: (origin, file) => `import httpx

with open("${file}", "rb") as photo:
    answer = httpx.post("${origin}/v1/classify", content=photo.read(), headers={"X-Model-Variant": "optimised"})
answer.raise_for_status()
for prediction in answer.json()["results"][0]["predictions"]:
    print(f"{prediction['probability']:6.1%}  {prediction['label']}")`,
  tritonclient: (origin, file) => `import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient("${origin.replace(/^https?:\/\//, "")}")
photo = triton.InferInput("image", [1], "BYTES")
photo.set_data_from_numpy(np.array([open("${file}", "rb").read()], dtype=np.object_))
top = triton.InferRequestedOutput("logits", class_count=5)
print(client.infer("optimised", [photo], outputs=[top]).as_numpy("logits"))`,
};

let file = "photo.jpg";
let chosen = "curl";

/** Name the file that was classified last. Quotes would end the strings that it stands in. */
export function nameFile(name: string): void {
  file = name.replace(/['"\\\r\n]/g, "_") || "photo.jpg";
  render();
}

export function setUp(): void {
  const tabs = byId("tabs");
  for (const name of Object.keys(SNIPPETS)) {
    const tab = make("button", "", name);
    tab.type = "button";
    tab.role = "tab";
    tab.onclick = () => {
      chosen = name;
      render();
    };
    tabs.append(tab);
  }
  render();
}

function render(): void {
  byId("snippet").textContent = SNIPPETS[chosen]?.(location.origin, file) ?? "";
  for (const tab of byId("tabs").children) tab.ariaSelected = String(tab.textContent === chosen);
}
