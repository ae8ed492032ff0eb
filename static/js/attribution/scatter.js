// What was predicted against what patching did, with the correlations. A chart by Plotly and the same as a table.
import { el } from '../experiments/dom.js';
import { button, colours, CONFIG, exportButtons } from '../plots.js';
import { plain, signed } from './words.js';

const MARKS = { resid_pre: 'circle', resid_post: 'circle', attn_out: 'square', mlp_out: 'diamond', z: 'triangle-up', q: 'star', k: 'x', v: 'cross' };
const LANES = { resid_pre: 1, resid_post: 1, attn_out: 2, mlp_out: 4, z: 3, q: 5, k: 6, v: 2 };
const NAMES = { resid_pre: 'resid', resid_post: 'resid', z: 'heads', q: 'queries', k: 'keys', v: 'values' };
const token = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const r = value => (value === null || value === undefined ? 'not defined' : value.toFixed(3).replace('-', '−'));

export function drawScatter(root, page) {
  const exact = page.data.found.patch_exactly;
  const sites = [...new Set(exact.patched.map(row => row.site))];
  const plot = el('div', { class: 'figure-plot scatter-plot', role: 'img', 'aria-label': `Predicted against actual effect of ${exact.patched.length} components: Pearson ${r(exact.pearson)}, Spearman ${r(exact.spearman)}. The table beside has each.` });
  const table = el('div', { class: 'table-wrap figure-table', tabindex: 0, role: 'region', 'aria-label': 'Predicted against actual as a table', hidden: true }, asTable(exact.patched, page));
  const toggle = button('Table', 'Show predicted against actual as a table', () => {
    table.hidden = !table.hidden;
    plot.hidden = !table.hidden;
    toggle.setAttribute('aria-pressed', String(plot.hidden));
    draw();
  });
  toggle.setAttribute('aria-pressed', 'false');
  const rows = () => [['component', 'site', 'position', 'predicted', 'actual'], ...exact.patched.map(row => [page.nameOf(row), row.site, row.position, row.predicted, row.actual])];
  const head = el('div', { class: 'figure-head' }, el('p', { class: 'correlation' }, el('b', {}, `r ${r(exact.pearson)}`), el('span', { class: 'faint' }, ' Pearson · '), el('b', {}, `ρ ${r(exact.spearman)}`), el('span', { class: 'faint' }, ` Spearman · ${exact.patched.length} components`)), el('span', { class: 'grow' }), toggle, ...exportButtons({ title: 'predicted against actual', file: 'predicted-actual', rows, plot }));
  root.replaceChildren(el('figure', { class: 'figure' }, head, plot, table), bySite(exact));

  const draw = () => {
    if (plot.hidden) return;
    const ink = colours();
    const lines = sites.map(site => {
      const some = exact.patched.filter(row => row.site === site);
      return {
        type: 'scatter', mode: 'markers', name: plain(NAMES[site] ?? site), x: some.map(row => row.predicted), y: some.map(row => row.actual), customdata: some.map(row => exact.patched.indexOf(row)),
        text: some.map(row => plain(`${page.nameOf(row)} ${row.position === null ? '' : page.tokenAt(row.position)}`)), hovertemplate: '%{text}<br>predicted %{x:.3f}, actual %{y:.3f}<extra></extra>',
        marker: { size: 8, symbol: MARKS[site] ?? 'circle', color: token(`lane-${LANES[site] ?? 1}`), opacity: 0.85, line: { width: 1, color: ink.surface } },
      };
    });
    const at = chosen(exact.patched, page.chosen);
    if (at) lines.push({ type: 'scatter', mode: 'markers', x: [at.predicted], y: [at.actual], hoverinfo: 'skip', showlegend: false, marker: { size: 15, symbol: 'circle-open', color: ink.text, line: { width: 2 } } });
    const values = [0, ...exact.patched.flatMap(row => [row.predicted, row.actual])];
    const [low, high] = [Math.min(...values), Math.max(...values)], room = 0.06 * (high - low || 1);
    const range = [low - room, high + room];
    const axis = { fixedrange: true, zeroline: true, zerolinecolor: ink.strong, color: ink.faint, gridcolor: ink.line, tickfont: { size: 11 }, range };
    window.Plotly.react(plot, lines, {
      height: 370, margin: { l: 52, r: 12, t: sites.length > 1 ? 46 : 8, b: 40 }, showlegend: sites.length > 1, legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, font: { size: 11, color: ink.text } }, dragmode: false, hovermode: 'closest',
      paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', font: { family: ink.font, size: 11, color: ink.faint },
      hoverlabel: { bgcolor: ink.over, bordercolor: ink.strong, font: { family: ink.font, color: ink.text } },
      xaxis: { ...axis, title: { text: `predicted, ${page.metric}`, font: { size: 11 }, standoff: 6 } }, yaxis: { ...axis, title: { text: `actual, ${page.metric}`, font: { size: 11 }, standoff: 4 } },
      shapes: [{ type: 'line', x0: range[0], y0: range[0], x1: range[1], y1: range[1], line: { color: ink.muted, width: 1, dash: 'dot' } }],
    }, CONFIG);
    plot.removeAllListeners('plotly_click');
    plot.on('plotly_click', ({ points: [point] }) => {
      const row = exact.patched[point.customdata];
      if (row) page.choose({ site: row.site, layer: row.layer, position: row.position ?? undefined, head: row.head ?? undefined });
    });
  };
  draw();
  page.follow({ choose: draw });
  return draw;
}

function chosen(patched, place) {
  return place && patched.find(row => ['site', 'layer', 'position', 'head'].every(name => (row[name] ?? null) === (place[name] ?? null)));
}

function bySite({ by_site: sites }) {
  const rows = Object.entries(sites);
  if (rows.length < 2) return '';
  const head = el('tr', {}, ...['Site', 'Components', 'Pearson', 'Spearman'].map((name, i) => el('th', { scope: 'col', class: i ? 'num' : '' }, name)));
  const body = rows.map(([site, found]) => el('tr', {}, el('th', { scope: 'row' }, NAMES[site] ?? site), el('td', { class: 'num' }, String(found.n)), el('td', { class: 'num' }, r(found.pearson)), el('td', { class: 'num' }, r(found.spearman))));
  return el('div', { class: 'table-wrap' }, el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...body)));
}

function asTable(patched, page) {
  const head = el('tr', {}, ...['Component', 'Token', 'Predicted', 'Actual'].map((name, i) => el('th', { scope: 'col', class: i > 1 ? 'num' : '' }, name)));
  const body = patched.map(row => el('tr', {}, el('td', {}, page.nameOf(row)), el('td', {}, row.position === null ? 'all' : page.tokenAt(row.position)), el('td', { class: 'num' }, signed(row.predicted)), el('td', { class: 'num' }, signed(row.actual))));
  return el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...body));
}
