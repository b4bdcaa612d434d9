/* A photo from the camera: seen on the page where the browser lets it, else by the phone's own camera. */

import { byId } from "./elements";

const QUALITY = 0.92; // of the JPEG, as cameras use it

export function setUp(take: (photo: Blob, name: string) => void, fail: (error: Error) => void): void {
  const dialog = byId<HTMLDialogElement>("camera");
  const video = byId<HTMLVideoElement>("viewfinder");
  const shutter = byId<HTMLButtonElement>("shutter");
  let asking = false; // the browser asks its user
  byId("open-camera").onclick = async () => {
    if (asking) return;
    if (!navigator.mediaDevices) {
      byId("capture").click(); // pages over plain HTTP see no camera; a phone's file dialog has one
      return;
    }
    asking = true;
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      fail(new Error("There is no camera that this page may use. Choose a photo instead."));
      return;
    } finally {
      asking = false;
    }
    shutter.disabled = true;
    dialog.showModal();
  };
  video.onloadeddata = () => {
    shutter.disabled = false; // there is a picture
  };
  shutter.onclick = () => {
    const picture = document.createElement("canvas");
    [picture.width, picture.height] = [video.videoWidth, video.videoHeight];
    picture.getContext("2d")?.drawImage(video, 0, 0);
    picture.toBlob((photo) => photo && take(photo, "camera.jpg"), "image/jpeg", QUALITY);
    dialog.close();
  };
  byId("close-camera").onclick = () => dialog.close();
  dialog.onclose = () => {
    for (const track of (video.srcObject as MediaStream).getTracks()) track.stop(); // the camera's light goes out
    video.srcObject = null;
  };
}
