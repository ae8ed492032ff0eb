// All links as a table, and as CSV.
import { button, csv, el, save } from '../experiments/dom.js';
import { signed, visible } from '../attribution/words.js';

const COLUMNS = ['Token', 'Place', 'Passage', 'Measured', 'Foretold', 'Layer'];

export function drawTable({ root, table, tools }, page) {
  const { found } = page;
  const rows = [...found.edges].sort((a, b) => a.token - b.token || b.drop - a.drop);
  const head = el('tr', {}, ...COLUMNS.map((name, i) => el('th', { scope: 'col', class: i === 1 || i > 2 ? 'num' : '' }, name)));
  const body = rows.map(edge => el('tr', {}, el('td', {}, el('code', { class: 'tok' }, visible(found.answer_tokens[edge.token][1]))), el('td', { class: 'num' }, String(edge.token)), el('td', {}, `${page.nameOf(edge.span)} ${page.titleOf(edge.span)}`), el('td', { class: 'num' }, signed(edge.drop)), el('td', { class: 'num' }, signed(edge.predicted)), el('td', { class: 'num' }, String(edge.best_layer))));
  table.append(rows.length ? el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...body)) : el('p', { class: 'muted' }, 'No link is strong enough.'));
  const toggle = button('Table', 'Show all links as a table', () => {
    table.hidden = !table.hidden;
    root.hidden = !table.hidden;
    toggle.setAttribute('aria-pressed', String(root.hidden));
  });
  toggle.setAttribute('aria-pressed', 'false');
  const cells = () => found.drops.flatMap((drops, token) => drops.map((drop, span) => [token, found.answer_tokens[token][1], found.passages[span].id, drop, found.predicted[token][span], found.best_layers[token][span]]));
  tools.replaceChildren(toggle, button('CSV', 'Save every token and passage as CSV', () => save('links.csv', 'text/csv', csv(['token', 'text', 'passage', 'measured', 'predicted', 'best_layer'], cells().map(row => row.map(safe))))));
}

/** A text that a spreadsheet would take for a formula is kept as the text that it is. */
const safe = value => (typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : value);
