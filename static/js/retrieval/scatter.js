// What was foretold for each token and passage, against what taking the passage out did.
import { plain, signed, visible } from '../attribution/words.js';
import { el } from '../experiments/dom.js';
import { button, colours, CONFIG, exportButtons } from '../plots.js';

const token = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const r = value => (value === null || value === undefined ? 'not defined' : value.toFixed(3).replace('-', '−'));

export function drawScatter(root, page) {
  const { found } = page;
  const points = found.drops.flatMap((drops, token) => drops.map((drop, span) => ({ token, span, drop, predicted: found.predicted[token][span], kept: drop >= found.epsilon })));
  const nameOf = point => `${visible(found.answer_tokens[point.token][1])} · ${page.nameOf(point.span)}`;
  const plot = el('div', { class: 'figure-plot rests-scatter', role: 'img', 'aria-label': `Foretold against measured drop of ${points.length} pairs of a token and a passage: Pearson ${r(found.pearson)}, Spearman ${r(found.spearman)}.` });
  const head = el('tr', {}, ...['Token and passage', 'Predicted', 'Measured'].map((name, i) => el('th', { scope: 'col', class: i ? 'num' : '' }, name)));
  const body = [...points].sort((a, b) => b.drop - a.drop).map(point => el('tr', {}, el('td', {}, nameOf(point)), el('td', { class: 'num' }, signed(point.predicted)), el('td', { class: 'num' }, signed(point.drop))));
  const table = el('div', { class: 'table-wrap figure-table tall', tabindex: 0, role: 'region', 'aria-label': 'Predicted against measured as a table', hidden: true }, el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...body)));
  const toggle = button('Table', 'Show predicted against measured as a table', () => {
    table.hidden = !table.hidden;
    plot.hidden = !table.hidden;
    toggle.setAttribute('aria-pressed', String(plot.hidden));
    draw();
  });
  toggle.setAttribute('aria-pressed', 'false');
  const rows = () => [['token', 'passage', 'predicted', 'measured'], ...points.map(point => [found.answer_tokens[point.token][1], found.passages[point.span].id, point.predicted, point.drop])];
  const line = el('div', { class: 'figure-head' }, el('p', { class: 'correlation' }, el('b', {}, `r ${r(found.pearson)}`), el('span', { class: 'faint' }, ' Pearson · '), el('b', {}, `ρ ${r(found.spearman)}`), el('span', { class: 'faint' }, ' Spearman')), el('span', { class: 'grow' }), toggle, ...exportButtons({ title: 'predicted against measured', file: 'predicted-measured', rows, plot }));
  root.replaceChildren(el('figure', { class: 'figure' }, line, plot, table));

  const draw = () => {
    if (plot.hidden) return;
    const ink = colours();
    const trace = (name, some, color, symbol) => ({
      type: 'scatter', mode: 'markers', name, x: some.map(p => p.predicted), y: some.map(p => p.drop), text: some.map(p => plain(nameOf(p))), customdata: some.map(p => p.token),
      hovertemplate: '%{text}<br>predicted %{x:.2f}, measured %{y:.2f} nats<extra></extra>', marker: { size: 8, symbol, color, opacity: 0.8, line: { width: 1, color: ink.surface } },
    });
    const values = [0, ...points.flatMap(point => [point.predicted, point.drop])];
    const [low, high] = [Math.min(...values), Math.max(...values)], room = 0.06 * (high - low || 1);
    const range = [low - room, high + room];
    const axis = { fixedrange: true, zeroline: true, zerolinecolor: ink.strong, color: ink.faint, gridcolor: ink.line, tickfont: { size: 11 }, range };
    window.Plotly.react(plot, [trace('a link', points.filter(p => p.kept), token('lane-1'), 'circle'), trace('below the threshold', points.filter(p => !p.kept), token('lane-base'), 'circle-open')], {
      height: 340, margin: { l: 52, r: 12, t: 34, b: 40 }, showlegend: true, legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, font: { size: 11, color: ink.text } }, dragmode: false, hovermode: 'closest',
      paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', font: { family: ink.font, size: 11, color: ink.faint }, hoverlabel: { bgcolor: ink.over, bordercolor: ink.strong, font: { family: ink.font, color: ink.text } },
      xaxis: { ...axis, title: { text: 'predicted, nats', font: { size: 11 }, standoff: 6 } }, yaxis: { ...axis, title: { text: 'measured, nats', font: { size: 11 }, standoff: 4 } },
      shapes: [{ type: 'line', x0: range[0], y0: range[0], x1: range[1], y1: range[1], line: { color: ink.muted, width: 1, dash: 'dot' } }],
    }, CONFIG);
    plot.removeAllListeners('plotly_click');
    plot.on('plotly_click', ({ points: [point] }) => page.choose(point.customdata));
  };
  draw();
  document.addEventListener('steerboard:theme', draw);
}
