// Tokens of a text as spans that are coloured by a feature. What a text says only ever becomes text nodes.
import { el } from '../playground/dom.js';

export const LEVELS = 5; // classes f1 to f5; none is 0
const BREAKS = { '\n': '↵\n', '\t': '⇥\t' };

/** 0 to LEVELS: shares of the largest value. */
export function level(value, most) {
  if (!(value > 0) || !(most > 0)) return 0;
  return Math.max(1, Math.min(LEVELS, Math.ceil(value / most * LEVELS)));
}

/** A token's text as it is shown: breaks are visible, and an empty one has a mark. */
export const shown = text => (text === '' ? '·' : text.replace(/[\n\t]/g, c => BREAKS[c]));

/** As one word in a line: no break leaves it. */
export const inline = text => (text === '' ? '·' : text.replaceAll('\n', '↵').replaceAll('\t', '⇥'));

export const number = (value, digits = 2) => (value == null ? '–' : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toFixed(digits))).replace('-', '−'));

/** What the colours mean, from nothing to `most`. */
export function legend(box, most, unit = '') {
  box.replaceChildren('0 ', el('span', { class: 'steps' }, ...Array.from({ length: LEVELS + 1 }, (_, i) => el('i', { class: `f${i}` }))), ` ${number(most)}${unit}`);
  box.setAttribute('role', 'img');
  box.setAttribute('aria-label', `Legend: five steps of teal, with an underline that grows, from above 0 to ${number(most)}`);
  box.hidden = false;
}

export async function ask(url, body = null) {
  const { csrfToken } = await import('../base.js');
  const headers = { Accept: 'application/json', ...(body ? { 'Content-Type': 'application/json', 'X-CSRFToken': csrfToken() } : {}) };
  let response;
  try {
    response = await fetch(url, { method: body ? 'POST' : 'GET', headers, body: body ? JSON.stringify(body) : undefined });
  } catch {
    throw new Error('The server did not answer. Check the connection, then try again.');
  }
  const said = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error(said?.error?.message ?? `The server refused this (${response.status}). Reload the page.`), { code: said?.error?.code ?? '' });
  return said;
}
