// The compare page: starts a comparison that a link names, draws it by layer. Tokens and names are text nodes only.
import { csrfToken } from './base.js';
import { button, colours, CONFIG, element, exportButtons } from './plots.js';

const form = document.querySelector('[data-compare]');
if (form?.hasAttribute('data-start') && csrfToken()) form.requestSubmit();

const more = document.querySelector('[data-more-terms]');
more?.addEventListener('click', () => {
  const next = document.querySelector('.term[hidden]');
  if (next) next.hidden = false;
  next?.querySelector('select').focus();
  more.hidden = !document.querySelector('.term[hidden]');
});

function show(data) {
  const names = data.vectors.map(vector => vector.name);
  const short = names.map((name, i) => `${i + 1} ${name.length > 14 ? `${name.slice(0, 13)}…` : name}`);
  let at = Math.max(0, data.layers.indexOf(data.layer));
  const layer = () => data.layers[at];
  const figures = [
    new Figure('Cosine', () => `cosines-layer-${layer()}`, {
      note: '1 is the same direction, 0 is unrelated, −1 is the opposite.',
      rows: () => [['vector', ...names], ...data.cosines[at].map((row, i) => [names[i], ...row])],
      digits: 2, plot: ink => heat(data.cosines[at], short, ink),
    }),
    new Figure('Map', () => `map-layer-${layer()}`, {
      note: () => `${names.map((name, i) => `${i + 1} ${name}`).join(' · ')}. PCA of the unit directions, which is classical MDS of √(2 − 2 cos): close is alike. The plane shows ${Math.round(data.maps[at].shown * 100)} % of the squared distances.`,
      rows: () => [['vector', 'x', 'y'], ...data.maps[at].points.map((point, i) => [names[i], ...point])],
      digits: 3, plot: ink => scatter(data.maps[at].points, names, ink),
    }),
    new Figure('Norm by layer, raw', () => 'norms', {
      note: 'Dashed: the median residual norm, which is one relative unit.',
      rows: () => [['layer', ...names, 'residual, median'], ...data.layers.map((l, i) => [l, ...data.norms.map(row => row[i]), data.residual_norms[0][i]])],
      digits: 1, plot: ink => norms(data, names, at, ink),
    }),
  ];
  document.querySelector('[data-comparison]').append(...figures.map(figure => figure.root));
  const tokens = document.querySelector('[data-tokens]'), nearest = document.querySelector('[data-nearest]');
  document.querySelector('[data-exports=tokens]').append(...exportButtons({ title: 'tokens', file: 'tokens', rows: () => tokenRows(data, names) }));
  document.querySelector('[data-exports=nearest]').append(...exportButtons({ title: 'nearest vectors', file: 'nearest', rows: () => nearestRows(data, names) }));
  const draw = () => {
    figures.forEach(figure => figure.draw());
    tokens.replaceChildren(...data.tokens[at].map((found, i) => tokenLists(names[i], i, found)));
    nearest.replaceChildren(neighbours(data.nearest[at], names));
  };
  const slider = document.getElementById('layer');
  if (slider) {
    slider.value = at;
    slider.setAttribute('aria-valuetext', `layer ${layer()}`);
    slider.addEventListener('input', () => {
      at = Number(slider.value);
      document.getElementById('layer-shown').textContent = layer();
      slider.setAttribute('aria-valuetext', `layer ${layer()}`);
      const url = new URL(location.href);
      url.searchParams.set('layer', layer());
      history.replaceState(null, '', url);
      draw();
    });
  }
  document.addEventListener('steerboard:theme', draw);
  if (window.Plotly) draw();
  else window.addEventListener('load', draw);
}

class Figure {
  constructor(title, file, { note, rows, digits, plot }) {
    Object.assign(this, { title, note, rows, digits, trace: plot });
    this.root = element('figure', 'figure');
    this.plot = element('div', 'figure-plot');
    this.plot.setAttribute('role', 'img');
    this.table = element('div', 'table-wrap figure-table');
    this.table.hidden = true;
    this.table.tabIndex = 0;
    this.table.setAttribute('role', 'region');
    this.table.setAttribute('aria-label', `${title} as a table`);
    this.words = element('p', 'small faint note');
    const head = element('figcaption', 'figure-head');
    const toggle = button('Table', `Show ${title} as a table`, () => {
      this.table.hidden = !this.table.hidden;
      this.plot.hidden = !this.table.hidden;
      toggle.setAttribute('aria-pressed', String(this.plot.hidden));
      this.draw();
    });
    toggle.setAttribute('aria-pressed', 'false');
    const buttons = exportButtons({ title, file, rows, plot: this.plot });
    head.append(element('h2', '', title), element('span', 'grow'), toggle, ...buttons);
    this.root.append(head, this.plot, this.table, this.words);
  }

  draw() {
    this.words.textContent = typeof this.note === 'function' ? this.note() : this.note;
    const [names, ...rows] = this.rows();
    this.plot.setAttribute('aria-label', `${this.title}: ${rows.map(row => row.map(v => this.said(v)).join(' ')).join('; ')}`.slice(0, 900));
    if (this.plot.hidden) return this.table.replaceChildren(tableOf(names, rows, v => this.said(v)));
    const { traces, layout } = this.trace(colours());
    window.Plotly.react(this.plot, traces, layout, CONFIG);
  }

  said(value) {
    return typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(this.digits) : String(value);
  }
}

function tableOf(names, rows, said, aligned = 'num') {
  const table = element('table', 'table');
  const head = element('tr');
  head.append(...names.map((name, i) => {
    const th = element('th', i ? aligned : '', name);
    th.scope = 'col';
    return th;
  }));
  const thead = element('thead'), body = element('tbody');
  thead.append(head);
  for (const [first, ...cells] of rows) {
    const row = element('tr');
    const th = element('th', '', said(first));
    th.scope = 'row';
    row.append(th, ...cells.map(cell => (cell instanceof Node ? cell : element('td', 'num', said(cell)))));
    body.append(row);
  }
  table.append(thead, body);
  return table;
}

const token = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function frame(ink, more) {
  return {
    height: 330, margin: { l: 110, r: 12, t: 12, b: 70 }, showlegend: false, dragmode: false,
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', font: { family: ink.font, size: 11, color: ink.faint },
    hoverlabel: { bgcolor: ink.over, bordercolor: ink.strong, font: { family: ink.font, color: ink.text } }, ...more,
  };
}

const axis = ink => ({ fixedrange: true, zeroline: false, color: ink.faint, gridcolor: ink.line, tickfont: { size: 11 } });

/** Names come from people: Plotly reads its own small markup in them, so what would begin a tag is taken out. */
const plain = text => text.replaceAll('&', '＆').replaceAll('<', '‹').replaceAll('>', '›');

function heat(matrix, names, ink) {
  const steps = ['neg-4', 'neg-3', 'neg-2', 'neg-1', 'surface-1', 'pos-1', 'pos-2', 'pos-3', 'pos-4'];
  const labels = names.map(plain);
  return {
    traces: [{
      type: 'heatmap', z: matrix, x: labels, y: labels, zmin: -1, zmax: 1, showscale: false, xgap: 2, ygap: 2,
      colorscale: steps.map((name, i) => [i / 8, token(name)]), text: matrix.map(row => row.map(v => v.toFixed(2))),
      texttemplate: '%{text}', textfont: { family: ink.font, size: 12, color: ink.text }, hovertemplate: '%{y} and %{x}: %{z:.3f}<extra></extra>',
    }],
    layout: frame(ink, {
      height: 330, margin: { l: 110, r: 12, t: 12, b: 96 },
      xaxis: { ...axis(ink), showgrid: false, tickangle: matrix.length > 3 ? -35 : 0 },
      yaxis: { ...axis(ink), showgrid: false, autorange: 'reversed' },
    }),
  };
}

function scatter(points, names, ink) {
  const reach = Math.max(0.15, ...points.flat().map(Math.abs)) * 1.35;
  const side = { ...axis(ink), range: [-reach, reach], nticks: 5, zeroline: true, zerolinecolor: ink.line };
  return {
    traces: [{
      type: 'scatter', mode: 'markers+text', x: points.map(p => p[0]), y: points.map(p => p[1]), text: names.map((_, i) => String(i + 1)), customdata: names.map(plain),
      textposition: names.map((_, i) => ['top center', 'bottom center', 'middle right', 'middle left'][i % 4]), marker: { size: 9, color: ink.main },
      textfont: { family: ink.font, size: 12, color: ink.text }, hovertemplate: '%{text} %{customdata}<extra></extra>', cliponaxis: false,
    }],
    layout: frame(ink, { margin: { l: 40, r: 12, t: 16, b: 32 }, xaxis: side, yaxis: side }),
  };
}

function norms(data, names, at, ink) {
  const dashes = ['solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot', '8px,2px', '2px,6px'];
  const line = (name, values, i) => ({
    type: 'scatter', mode: data.layers.length > 1 ? 'lines' : 'markers', name: plain(name), x: data.layers, y: values,
    line: { width: 2, color: token(`lane-${(i % 6) + 1}`), dash: dashes[i] }, hovertemplate: '%{y:.1f}<extra>%{fullData.name}</extra>',
  });
  return {
    traces: [
      ...data.norms.map((row, i) => line(`${i + 1} ${names[i]}`, row, i)),
      { ...line('residual, median', data.residual_norms[0], 0), line: { width: 1.5, color: ink.muted, dash: 'dash' } },
    ],
    layout: frame(ink, {
      margin: { l: 48, r: 12, t: 12, b: 34 }, showlegend: true, legend: { orientation: 'h', y: -0.3, font: { size: 11, color: ink.text } }, hovermode: 'x',
      xaxis: { ...axis(ink), showgrid: false, title: { text: 'layer', font: { size: 11 } } }, yaxis: { ...axis(ink), type: 'log', dtick: 1, exponentformat: 'none' },
      shapes: [{ type: 'line', x0: data.layers[at], x1: data.layers[at], yref: 'paper', y0: 0, y1: 1, line: { color: ink.text, width: 1, dash: 'dot' } }],
    }),
  };
}

/** Spaces and line ends of a token made visible. */
const visible = text => text.replaceAll('\n', '⏎').replaceAll('\t', '⇥').replaceAll(' ', '␣') || '(empty)';

function tokenLists(name, index, found) {
  const pair = element('div', 'token-pair');
  for (const [side, title] of [['promotes', 'Promotes'], ['suppresses', 'Suppresses']]) {
    const list = element('ol');
    for (const [id, text, moved] of found[side]) {
      const item = element('li');
      const code = element('code', '', visible(text));
      code.title = `token ${id}`;
      item.append(code, element('span', moved > 0 ? 'num pos' : 'num neg', `${moved > 0 ? '+' : '−'}${Math.abs(moved).toFixed(2)}`));
      list.append(item);
    }
    const half = element('div');
    half.append(element('h4', '', title), list);
    pair.append(half);
  }
  const section = element('section');
  section.append(element('h3', '', `${index + 1} ${name}`), pair);
  return section;
}

function tokenRows(data, names) {
  const rows = data.layers.flatMap((layer, at) => data.tokens[at].flatMap((found, i) =>
    ['promotes', 'suppresses'].flatMap(side => found[side].map(([id, text, moved]) => [layer, names[i], side, id, text, moved]))));
  return [['layer', 'vector', 'side', 'token id', 'token', 'logit against the average'], ...rows];
}

function nearestRows(data, names) {
  const rows = data.layers.flatMap((layer, at) => data.nearest[at].flatMap((found, i) => found.map(n => [layer, names[i], n.name, n.cosine])));
  return [['layer', 'vector', 'nearest', 'cosine'], ...rows];
}

function neighbours(nearest, names) {
  if (nearest.every(found => !found.length)) return element('p', 'muted', 'Your library has no other vector of this model with a direction at this layer.');
  const most = Math.max(...nearest.map(found => found.length));
  const rows = nearest.map((found, i) => [names[i], ...Array.from({ length: most }, (_, k) => cellOf(found[k]))]);
  return tableOf(['Vector', ...Array.from({ length: most }, (_, k) => `${k + 1}.`)], rows, String, '');
}

function cellOf(near) {
  const cell = element('td');
  if (!near) return cell;
  const link = element('a', '', near.name);
  link.href = near.url;
  cell.append(link, ' ', element('span', 'num faint', near.cosine.toFixed(2)));
  return cell;
}

const source = document.getElementById('comparison');
if (source) show(JSON.parse(source.textContent));
