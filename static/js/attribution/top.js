// The strongest components: what was predicted, and what patching them for real did.
import { el } from '../experiments/dom.js';
import { exportButtons } from '../plots.js';
import { signed } from './words.js';

export function drawTop({ table, sub, tools }, page) {
  const exact = page.data.found.patch_exactly;
  const rows = exact ? [...exact.patched].sort((one, other) => Math.abs(other.predicted) - Math.abs(one.predicted)) : page.found.top;
  sub.textContent = exact ? `${rows.length} patched for real` : `${rows.length} by prediction; nothing is verified yet`;
  const columns = ['Component', 'Token', 'Predicted', ...(exact ? ['Actual'] : [])];
  const head = el('tr', {}, el('th', { class: 'num', scope: 'col' }, '#'), ...columns.map((name, i) => el('th', { scope: 'col', class: i > 1 ? 'num' : '' }, name)));
  const lines = rows.map((row, n) => line(row, n, page, Boolean(exact)));
  table.replaceChildren(el('table', { class: 'table components' }, el('thead', {}, head), el('tbody', {}, ...lines)));
  tools.replaceChildren(...exportButtons({ title: 'the strongest components', file: 'components', rows: () => exported(rows, page, Boolean(exact)) }));
  page.follow({
    choose: place => lines.forEach((tr, n) => {
      tr.classList.toggle('picked', matches(rows[n], place));
      tr.querySelector('button').setAttribute('aria-pressed', String(exactly(rows[n], place)));
    }),
    point: place => lines.forEach((tr, n) => tr.classList.toggle('is-lit', matches(rows[n], place))),
  });
  return null;
}

const PARTS = ['site', 'layer', 'position', 'head'];

/** A row is meant by a place where it has all that the place names: a token alone means every row at it. */
const matches = (row, place) => Boolean(place) && PARTS.every(name => place[name] === undefined || place[name] === (row[name] ?? undefined));
const exactly = (row, place) => Boolean(place) && PARTS.every(name => (place[name] ?? null) === (row[name] ?? null));

function line(row, n, page, exact) {
  const place = { site: row.site, layer: row.layer, position: row.position ?? undefined, head: row.head ?? undefined };
  const open = el('button', { type: 'button', class: 'link', title: row.hook, 'aria-pressed': 'false', onclick: () => page.choose(place), onfocus: () => page.point(place), onblur: () => page.point(null) }, page.nameOf(row));
  const cell = value => el('td', { class: 'num' }, el('span', { class: value > 0 ? 'pos' : value < 0 ? 'neg' : '' }, signed(value)));
  const token = row.position === null || row.position === undefined ? el('span', { class: 'faint' }, 'all') : el('code', { class: 'tok' }, page.tokenAt(row.position));
  const made = el('tr', {}, el('td', { class: 'num faint' }, String(n + 1)), el('td', { class: 'nowrap' }, open), el('td', {}, token, row.position === null || row.position === undefined ? '' : el('span', { class: 'faint small' }, ` ${row.position}`)), cell(row.predicted), ...(exact ? [cell(row.actual)] : []));
  made.addEventListener('mouseenter', () => page.point(place));
  made.addEventListener('mouseleave', () => page.point(null));
  return made;
}

function exported(rows, page, exact) {
  const names = ['hook', 'site', 'layer', 'position', 'token', 'head', 'predicted', ...(exact ? ['actual'] : [])];
  const token = row => (row.position === null || row.position === undefined ? '' : page.found.corrupted.tokens[row.position][1]);
  return [names, ...rows.map(row => names.map(name => (name === 'token' ? token(row) : row[name])))];
}
