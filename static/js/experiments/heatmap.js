// A heat map of layers and strengths as SVG: a grid that arrow keys walk and Enter opens. Knows no server.
import { el, fixed, svg } from './dom.js';

const LEFT = 35;
const TOP = 21;
const WIDE = 53;
const HIGH = 32;
const SHADES = 7;
const DARK = 4; // from this shade on, numbers are light

/**
 * Draw `cells` ({layer, strength, value, shown, low, label, group}) over all `layers` and `strengths`, of which some may
 * be waiting. `chosen` is a group; `pick(group)` is called when a person chooses one.
 */
export function heatMap({ title, layers, strengths, cells, chosen, best, running, pick }) {
  const rows = [...layers].sort((a, b) => b - a);
  const width = LEFT + strengths.length * WIDE + 5;
  const height = TOP + rows.length * HIGH + 40;
  const drawing = svg('svg', { class: 'plot', viewBox: `0 0 ${width} ${height}`, role: 'grid', 'aria-label': `${title} by layer and strength; arrow keys move, Enter selects` });
  const id = `low-${Math.random().toString(36).slice(2)}`;
  drawing.append(svg('defs', {}, svg('pattern', { id, width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, svg('path', { class: 'hatch-low', d: 'M0 0V5' }))));
  const at = new Map(cells.map(cell => [`${cell.layer} ${cell.strength}`, cell]));
  const scale = scaleOf(cells);
  rows.forEach((layer, y) => {
    const strong = at.get(`${layer} ${strengthOf(cells, chosen)}`)?.group === chosen && chosen;
    const row = svg('g', { role: 'row' }, svg('text', { class: strong ? 'strong' : '', x: 24, y: TOP + y * HIGH + 19, 'text-anchor': 'end', role: 'rowheader' }, String(layer)));
    strengths.forEach((strength, x) => row.append(place(at.get(`${layer} ${strength}`), LEFT + x * WIDE, TOP + y * HIGH, { scale, id, chosen, running, pick })));
    drawing.append(row);
  });
  const marked = cells.find(cell => cell.group === chosen) ?? cells.find(cell => cell.group === best);
  if (marked) drawing.append(svg('rect', { class: 'ring', x: LEFT + strengths.indexOf(marked.strength) * WIDE - 1, y: TOP + rows.indexOf(marked.layer) * HIGH - 1, width: WIDE, height: HIGH, rx: 3 }));
  drawing.append(svg('text', { x: 0, y: 12 }, 'layer'));
  strengths.forEach((strength, x) => drawing.append(svg('text', { class: marked?.strength === strength ? 'strong' : '', x: LEFT + x * WIDE + 25.5, y: height - 24, 'text-anchor': 'middle' }, String(strength))));
  drawing.append(svg('text', { x: LEFT + (strengths.length * WIDE) / 2, y: height - 6, 'text-anchor': 'middle' }, 'strength, × median residual norm'));
  walk(drawing, pick);
  return el('div', { class: 'scroll-x', role: 'region', 'aria-label': `Heat map: ${title}`, tabindex: -1 }, drawing);
}

function strengthOf(cells, group) {
  return cells.find(cell => cell.group === group)?.strength;
}

function scaleOf(cells) {
  const values = cells.map(cell => cell.value);
  const low = Math.min(...values);
  const high = Math.max(...values);
  return value => (high > low ? Math.min(SHADES - 1, Math.floor(((value - low) / (high - low)) * SHADES)) : 0);
}

function place(cell, x, y, { scale, id, chosen, running, pick }) {
  if (!cell) return svg('rect', { class: running ? 'live' : 'wait', x: x + 2.5, y: y + 2.5, width: 46, height: 25, rx: 2 });
  const shade = scale(cell.value);
  const selected = cell.group === chosen;
  const made = svg('g', { class: 'cell', role: 'gridcell', tabindex: selected ? 0 : -1, 'aria-selected': String(selected), 'aria-label': cell.label, 'data-group': cell.group, onclick: () => pick(cell.group) });
  made.append(svg('rect', { class: `q${shade}`, x, y, width: 51, height: 30, rx: 2 }));
  if (cell.low) made.append(svg('rect', { x, y: y + 23, width: 51, height: 7, rx: 1, fill: `url(#${id})` }));
  made.append(svg('text', { class: `v${shade >= DARK ? ' v-inv' : ''}`, x: x + 25.5, y: y + (cell.low ? 17 : 19) }, cell.shown ?? fixed(cell.value)));
  return made;
}

function walk(drawing, pick) {
  const cells = [...drawing.querySelectorAll('.cell')];
  if (cells.length && !cells.some(cell => cell.tabIndex === 0)) cells[0].setAttribute('tabindex', 0);
  drawing.addEventListener('keydown', event => {
    const here = document.activeElement;
    if (!here?.dataset?.group) return;
    if (event.key === 'Enter' || event.key === ' ') {
      pick(here.dataset.group);
      return event.preventDefault();
    }
    const next = neighbour(drawing, here, event.key);
    if (!next) return;
    here.setAttribute('tabindex', -1);
    next.setAttribute('tabindex', 0);
    next.focus();
    event.preventDefault();
  });
}

function neighbour(drawing, here, key) {
  const row = here.parentNode;
  const inRow = [...row.querySelectorAll('.cell')];
  const x = Number(here.firstChild.getAttribute('x'));
  const rows = [...drawing.querySelectorAll('[role=row]')];
  if (key === 'ArrowRight') return inRow[inRow.indexOf(here) + 1];
  if (key === 'ArrowLeft') return inRow[inRow.indexOf(here) - 1];
  const step = { ArrowDown: 1, ArrowUp: -1 }[key];
  const other = step && rows[rows.indexOf(row) + step];
  return other && [...other.querySelectorAll('.cell')].find(cell => Number(cell.firstChild.getAttribute('x')) === x);
}

export function mapKey({ floor, running }) {
  const small = (...marks) => svg('svg', { viewBox: '0 0 18 12', class: 'plot', 'aria-hidden': 'true' }, ...marks);
  const entries = [
    el('span', {}, small(svg('rect', { class: 'q1', width: 6, height: 12 }), svg('rect', { class: 'q3', x: 6, width: 6, height: 12 }), svg('rect', { class: 'q5', x: 12, width: 6, height: 12 })), 'low to high'),
    el('span', {}, small(svg('rect', { class: 'q2', width: 18, height: 12, rx: 2 }), svg('path', { class: 'hatch-low', d: 'M2 12L8 6M8 12L14 6M14 12L18 8' })), `coherence below ${floor}`),
  ];
  if (running) entries.push(el('span', {}, small(svg('rect', { class: 'live-key', x: 1, y: 1, width: 16, height: 10, rx: 2 })), 'to come'));
  return el('div', { class: 'key' }, ...entries);
}
