/* Elements of the page, made without markup in strings: labels are the model's, and could hold anything. */

/** An element of the page's own HTML. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const found = document.getElementById(id);
  if (!found) throw new Error(`there is no #${id}`);
  return found as E;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  kind: K,
  className = "",
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(kind);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** A bar that is `share` (0 to 1) as long as its place. Widths are set on the style object, which the policy allows. */
export function bar(className: string, share: number): HTMLElement {
  const element = make("span", className);
  element.style.setProperty("width", `${Math.max(0, Math.min(1, share)) * 100}%`);
  return element;
}

export function milliseconds(value: number): string {
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ms`;
}
