// The token under the pointer or the keyboard, described at the foot of its lane; nothing covers the text.
import { el, figure, svg } from './dom.js';

const BREAKS = { '\n': '↵', '\t': '⇥' };
const visible = text => text.replace(/[\n\t]/g, c => BREAKS[c]);
const share = logprob => Math.exp(logprob);
const percent = p => p.toFixed(2).replace(/^0/, '');

/** `token` is { s, id, lp, top }, `place` counts from 1; `watched` is [[name, value], ...] of what was read there. */
export function drawStrip(box, token, place, watched = []) {
  box.replaceChildren(line(token, place), ...(watched.length ? [readings(watched)] : []), ...(token.top.length ? [alternatives(token.top)] : []));
  box.hidden = false;
}

function line(token, place) {
  const shown = token.s === '' ? el('span', { class: 'faint' }, 'no text of its own') : el('span', { class: 'tok' }, visible(token.s));
  const facts = token.lp == null
    ? [el('span', { class: 'faint' }, 'no probability was recorded')]
    : [el('b', { class: 'num' }, `${figure(token.lp)} nats`), el('span', {}, 'p ', el('b', { class: 'num' }, share(token.lp).toFixed(2)))];
  return el('p', { class: 'line' }, el('span', {}, `Token ${place} `, shown), ...facts);
}

function readings(watched) {
  return el('p', { class: 'line' }, ...watched.map(([name, value]) => el('span', {}, `${name} `, value == null ? el('span', { class: 'faint' }, 'not read') : el('b', { class: 'num' }, figure(value, 3)))));
}

function alternatives(top) {
  return el('ol', { class: 'alts', 'aria-label': 'Likeliest tokens here' }, ...top.map(([text, logprob]) => {
    const p = share(logprob);
    return el('li', {},
      el('span', { class: 'pair' }, el('span', {}, visible(text)), el('span', {}, percent(p))),
      svg('svg', { viewBox: '0 0 100 3', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
        svg('rect', { class: 'bar-bg', width: 100, height: 3 }),
        svg('rect', { class: 'bar-fg', width: Math.max(1, p * 100).toFixed(1), height: 3 })));
  }));
}
