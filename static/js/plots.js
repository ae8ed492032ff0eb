// Figures: a Plotly chart in our colours, the same numbers as a table, and as CSV. Knows no vectors.
// The page loads vendor/plotly before this, and includes vectors/plotly_styles.html in its head.

export const CONFIG = {
  displayModeBar: false, displaylogo: false, showSendToCloud: false, plotlyServerURL: '', showTips: false,
  doubleClick: false, responsive: true,
};
const HEIGHT = 190;
const DASHES = { main: 'solid', dash: 'dash', dot: 'dot' };

/**
 * Draw figures into `container`, again whenever the theme changes. A figure is
 * { title, file, x: {label, values}, series: [{name, values, kind: 'main'|'dash'|'dot'}], range?, log?, digits,
 *   pick?: x value to mark, shade?: {from, label} }.
 */
export function drawFigures(container, figures) {
  const drawn = figures.map(figure => new Figure(figure));
  container.append(...drawn.map(figure => figure.root));
  for (const figure of drawn) figure.draw();
  document.addEventListener('steerboard:theme', () => drawn.forEach(figure => figure.draw()));
  return drawn;
}

class Figure {
  constructor(figure) {
    this.figure = figure;
    this.plot = element('div', 'figure-plot');
    this.plot.setAttribute('role', 'img');
    this.plot.setAttribute('aria-label', describe(figure));
    this.table = element('div', 'table-wrap figure-table');
    this.table.hidden = true;
    this.table.tabIndex = 0;
    this.table.setAttribute('role', 'region');
    this.table.setAttribute('aria-label', `${figure.title} as a table`);
    this.root = element('figure', 'figure');
    this.root.append(this.head(), this.plot, this.table);
    if (figure.series.length > 1) this.root.append(key(figure.series));
  }

  head() {
    const head = element('figcaption', 'figure-head');
    this.toggle = button('Table', `Show ${this.figure.title} as a table`, () => this.showTable(this.table.hidden));
    this.toggle.setAttribute('aria-pressed', 'false');
    head.append(element('h3', '', this.figure.title), element('span', 'grow'), this.toggle, ...exportButtons({
      title: this.figure.title, file: this.figure.file, plot: this.plot,
      rows: () => [[this.figure.x.label, ...this.figure.series.map(s => s.name)], ...rowsOf(this.figure)],
    }));
    return head;
  }

  /** Show other numbers: those of a job that runs. */
  update(figure) {
    this.figure = figure;
    this.plot.setAttribute('aria-label', describe(figure));
    this.table.replaceChildren();
    this.showTable(!this.table.hidden);
  }

  showTable(show) {
    if (show && !this.table.firstChild) this.table.append(tableOf(this.figure));
    this.table.hidden = !show;
    this.plot.hidden = show;
    this.toggle.setAttribute('aria-pressed', String(show));
    if (!show) this.draw();
  }

  draw() {
    if (this.plot.hidden) return;
    const ink = colours();
    window.Plotly.react(this.plot, traces(this.figure, ink), layout(this.figure, ink), CONFIG);
  }
}

function traces({ x, series, pick, digits }, ink) {
  const lines = series.map(({ name, values, kind }) => ({
    type: 'scatter', name, x: x.values, y: values, mode: kind === 'main' ? 'lines+markers' : 'lines',
    line: { color: kind === 'main' ? ink.main : ink.muted, width: kind === 'main' ? 2 : 1.75, dash: DASHES[kind] },
    marker: { size: 5, line: { color: ink.surface, width: 1 } },
    hovertemplate: `${name} %{y:.${digits}f}<extra></extra>`,
  }));
  const at = x.values.indexOf(pick);
  if (at < 0) return lines;
  const main = series.find(({ kind }) => kind === 'main');
  return [...lines, {
    type: 'scatter', x: [pick], y: [main.values[at]], mode: 'markers', hoverinfo: 'skip',
    marker: { size: 11, symbol: 'circle-open', color: ink.text, line: { width: 2 } },
  }];
}

function layout(figure, ink) {
  const { x, range, log, shade } = figure;
  const axis = { fixedrange: true, zeroline: false, color: ink.faint, gridcolor: ink.line, tickfont: { size: 11 } };
  const y = log ? { type: 'log', dtick: 1, exponentformat: 'none' } : { range, nticks: 5 };
  return {
    height: HEIGHT, margin: { l: 44, r: 12, t: 18, b: 34 }, showlegend: false, dragmode: false, hovermode: 'x',
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent',
    font: { family: ink.font, size: 11, color: ink.faint },
    hoverlabel: { bgcolor: ink.over, bordercolor: ink.strong, font: { family: ink.font, color: ink.text } },
    xaxis: { ...axis, showgrid: false, title: { text: x.label, font: { size: 11 }, standoff: 6 }, nticks: Math.max(2, Math.min(11, x.values.length)), range: [x.values[0] - 0.5, x.values.at(-1) + 0.5] },
    yaxis: { ...axis, ...y },
    shapes: [...(shade ? [shadeShape(shade, x, ink)] : []), ...pickShape(figure, ink)],
    annotations: [...(shade ? [shadeLabel(shade, x, ink)] : []), ...pickLabel(figure, ink)],
  };
}

function shadeShape({ from }, x, ink) {
  const right = x.values.at(-1) + 0.5;
  return { type: 'rect', layer: 'below', x0: from - 0.5, x1: right, yref: 'paper', y0: 0, y1: 1, fillcolor: ink.shade, line: { width: 0 } };
}

function shadeLabel({ label }, x, ink) {
  return { text: label, showarrow: false, x: x.values.at(-1) + 0.5, xanchor: 'right', yref: 'paper', y: 1, yanchor: 'bottom', font: { size: 11, color: ink.faint } };
}

function pickShape({ pick, x }, ink) {
  if (!x.values.includes(pick)) return [];
  return [{ type: 'line', x0: pick, x1: pick, yref: 'paper', y0: 0, y1: 1, line: { color: ink.text, width: 1, dash: 'dot' } }];
}

function pickLabel({ pick, x, series, digits }, ink) {
  const at = x.values.indexOf(pick);
  if (at < 0) return [];
  const value = series.find(({ kind }) => kind === 'main').values[at];
  return [{ text: `${value.toFixed(digits)} at ${pick}`, showarrow: false, x: pick, yref: 'paper', y: 1, yanchor: 'bottom', font: { size: 11, weight: 600, color: ink.text } }];
}

export function colours() {
  const style = getComputedStyle(document.documentElement);
  const token = name => style.getPropertyValue(`--${name}`).trim();
  return {
    main: token('lane-1'), text: token('text'), muted: token('text-muted'), faint: token('text-faint'),
    line: token('line'), strong: token('line-strong'), surface: token('surface-1'), over: token('surface-over'),
    shade: token('surface-2'), font: getComputedStyle(document.body).fontFamily,
  };
}

function describe({ title, x, series, pick, digits }) {
  const at = x.values.indexOf(pick);
  const span = `${title} by ${x.label}, ${x.values[0]} to ${x.values.at(-1)}.`;
  return at < 0 ? span : `${span} At ${pick}: ${series.map(s => `${s.name} ${s.values[at].toFixed(digits)}`).join(', ')}.`;
}

function key(series) {
  const list = element('p', 'key');
  for (const { name, kind } of series) {
    const entry = element('span');
    entry.append(keyLine(kind), name);
    list.append(entry);
  }
  return list;
}

function keyLine(kind) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  svg.setAttribute('viewBox', '0 0 18 12');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'plot');
  path.setAttribute('d', 'M0 6H18');
  path.setAttribute('class', kind === 'main' ? 'series-main' : 'series');
  if (kind !== 'main') path.setAttribute('stroke-dasharray', kind === 'dash' ? '6 3' : '2 3');
  svg.append(path);
  return svg;
}

function rowsOf({ x, series }) {
  return x.values.map((value, i) => [value, ...series.map(s => s.values[i])]);
}

function tableOf(figure) {
  const table = element('table', 'table');
  const head = element('tr');
  head.append(...[figure.x.label, ...figure.series.map(s => s.name)].map(name => element('th', 'num', name)));
  const thead = element('thead');
  thead.append(head);
  const body = element('tbody');
  for (const [value, ...cells] of rowsOf(figure)) {
    const row = element('tr', value === figure.pick ? 'picked' : '');
    row.append(element('td', 'num', String(value)), ...cells.map(cell => element('td', 'num', cell.toFixed(figure.digits))));
    body.append(row);
  }
  table.append(thead, body);
  return table;
}

/**
 * Buttons that save what is shown under the name `file`, or what it gives: `rows()` gives the names of the columns, then the rows; `plot` is the element that
 * Plotly drew into, where there is one.
 */
export function exportButtons({ title, file, rows, plot }) {
  const made = [
    button('CSV', `Download ${title} as CSV`, () => save(`${named(file)}.csv`, 'text/csv', csvOf(rows()))),
    button('JSONL', `Download ${title} as JSON lines`, () => save(`${named(file)}.jsonl`, 'application/jsonl', jsonlOf(rows()))),
  ];
  if (plot) made.push(button('PNG', `Download ${title} as a picture`, () => savePicture(plot, named(file))));
  return made;
}

const named = file => (typeof file === 'function' ? file() : file);

function csvOf(rows) {
  const cell = value => {
    const text = String(value ?? '');
    if (typeof value === 'number') return text;
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`; // no formula for a spreadsheet
  };
  return `${rows.map(cells => cells.map(cell).join(',')).join('\n')}\n`;
}

function jsonlOf([names, ...rows]) {
  return rows.map(cells => `${JSON.stringify(Object.fromEntries(names.map((name, i) => [name, cells[i]])))}\n`).join('');
}

/** Plotly's own way to a PNG loads a blob: as image, which the content security policy refuses; a data: it allows. */
async function savePicture(plot, file) {
  const { width, height } = plot.getBoundingClientRect();
  const picture = new Image();
  picture.src = await window.Plotly.toImage(plot, { format: 'svg', width, height });
  await picture.decode();
  const canvas = document.createElement('canvas');
  canvas.width = width * 2;
  canvas.height = height * 2;
  const pen = canvas.getContext('2d');
  pen.fillStyle = colours().surface; // a plot is transparent, and the page it is pasted into may be of another colour
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  canvas.toBlob(blob => save(`${file}.png`, 'image/png', blob));
}

function save(name, type, text) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function button(text, label, onclick) {
  const made = element('button', 'btn btn-sm', text);
  made.type = 'button';
  made.setAttribute('aria-label', label);
  made.addEventListener('click', onclick);
  return made;
}

export function element(tag, className = '', text = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
