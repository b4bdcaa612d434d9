/* The page at /: a photo goes in, and both variants say what they see and how long that took. */

import * as camera from "./camera";
import { show } from "./cards";
import { byId, make } from "./elements";
import * as experiment from "./experiment";
import { profileViews } from "./layers";
import * as live from "./live";
import { measure } from "./measurement";
import { Answer, VARIANTS, Variant, classify, fetchDocument } from "./service";
import * as snippets from "./snippets";
import * as why from "./why";

const LAYERS_EVERY = 5000; // milliseconds between questions, until there is an answer
const SAMPLES = ["golf-ball", "parachute", "church"];

let photo: Blob | null = null;
let turn = 0; // of photos; answers for an earlier one are not shown

async function take(file: Blob, name: string): Promise<void> {
  const mine = ++turn;
  photo = file;
  fail(null);
  preview(file);
  snippets.nameFile(name);
  const progress = byId<HTMLProgressElement>("progress");
  progress.hidden = false;
  try {
    const answers: Partial<Record<Variant, Answer>> = {};
    for (const [index, variant] of VARIANTS.entries()) {
      const answer = await classify(file, variant, (share) => {
        if (mine === turn) progress.value = (index + share) / VARIANTS.length;
      });
      answers[variant] = answer;
    }
    await why.served();
    if (mine !== turn) return;
    show(file, answers as Record<Variant, Answer>);
    byId("result").hidden = false;
  } catch (error) {
    if (mine === turn) fail(error);
  } finally {
    if (mine === turn) progress.hidden = true;
  }
}

function preview(file: Blob): void {
  const image = byId<HTMLImageElement>("preview");
  if (image.src) URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  image.alt = "The photo that was sent";
  image.hidden = false;
  image.onerror = () => {
    image.hidden = true; // a format that the browser does not show; the service may read it
  };
  byId("invitation").hidden = true;
}

function fail(error: unknown): void {
  const place = byId("error");
  place.hidden = error === null;
  place.textContent = error instanceof Error ? error.message : "";
  if (error !== null) byId("result").hidden = true;
}

async function measureNow(button: HTMLButtonElement): Promise<void> {
  if (!photo) return;
  button.disabled = true;
  try {
    await measure(photo);
  } catch (error) {
    fail(error);
  } finally {
    button.disabled = false;
  }
}

function setUpPhotos(): void {
  for (const picker of [byId<HTMLInputElement>("file"), byId<HTMLInputElement>("capture")]) {
    picker.onchange = () => {
      const file = picker.files?.[0];
      if (file) void take(file, file.name);
      picker.value = "";
    };
  }
  camera.setUp((file, name) => void take(file, name), fail);
  const drop = byId("drop");
  document.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add("over");
  };
  document.ondragleave = () => drop.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const file = event.dataTransfer?.files[0];
    if (file) void take(file, file.name);
  };
  document.onpaste = (event) => {
    const file = event.clipboardData?.files[0];
    if (file) void take(file, file.name);
  };
  for (const name of SAMPLES) {
    const image = make("img");
    image.src = `page/${name}.jpg`;
    image.alt = name.replace("-", " ");
    const button = make("button", "", image);
    button.type = "button";
    button.onclick = async () => {
      const answer = await fetch(image.src);
      if (answer.ok) void take(await answer.blob(), `${name}.jpg`);
    };
    byId("samples").append(make("li", "", button));
  }
}

async function describe(): Promise<void> {
  const model = await why.served();
  if (!model) return;
  const optimised = model.variants.find((variant) => variant.name === "optimised");
  const isa = optimised?.isa ? ` (${optimised.isa})` : "";
  // Why it does not run on our engine, where it does not.
  const note = optimised?.backend === "onnxruntime" && optimised.note ? ` ${optimised.note}` : "";
  byId("model").textContent = `${model.name} in two variants, on this machine${isa}.${note}`;
}

/** The layers, once the service has measured them. */
async function showLayers(): Promise<void> {
  let profile = null;
  while (!profile) {
    if (!document.hidden) profile = await fetchDocument("/v1/profile");
    if (!profile) await new Promise((resolve) => setTimeout(resolve, LAYERS_EVERY));
  }
  byId("profile").replaceChildren(profileViews(profile));
}

const button = byId<HTMLButtonElement>("measure");
button.onclick = () => void measureNow(button);
setUpPhotos();
snippets.setUp();
void describe();
void showLayers();
void experiment.follow();
live.follow();
