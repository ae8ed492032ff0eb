// Elements without markup strings: whatever a model or a person wrote can only ever become text.
import { icon } from '../base.js';

export { icon };

const SVG = 'http://www.w3.org/2000/svg';

/** el('button', { class: 'btn', onclick: f, 'aria-label': 'x', hidden: true }, 'text', child, null) */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter(child => child != null && child !== false));
  return node;
}

/** A button of the page's own kind; `label` is spoken where there is only an icon. */
export function iconButton(name, label, onclick, props = {}) {
  return el('button', { class: 'btn btn-ghost btn-icon btn-sm', type: 'button', 'aria-label': label, title: label, onclick, ...props }, icon(name));
}

export const $ = id => document.getElementById(id);

/** Lets people act on what the template holds back (`inert`) until someone listens: no early click is lost. */
export function wake() {
  for (const part of document.querySelectorAll('[inert]')) part.inert = false;
}

/** A number as people read it: 0.45, 3.1, 21, -1.5 */
export function figure(value, digits = 2) {
  return String(Number(value.toFixed(digits))).replace('-', '−');
}

export const count = value => value.toLocaleString('en');

export const LANE_CLASS = { base: 'lane-base', prompt: 'lane-prompt' };
export const laneClass = lane => LANE_CLASS[lane.colour] ?? `lane-${lane.colour}`;

/** "A", "A and C", "A, B and C" */
export function list(words) {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
