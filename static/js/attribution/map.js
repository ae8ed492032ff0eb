// The model's map: a drawing of one block, hooks and modules, and a search over all of it.
import { el, svg } from '../experiments/dom.js';
import { exportButtons } from '../plots.js';

const data = JSON.parse(document.getElementById('map-data').textContent);
const at = name => document.querySelector(`[data-${name}]`);
const count = new Intl.NumberFormat('en');
const shaped = shape => shape.map(size => (typeof size === 'number' ? count.format(size) : size)).join(' × ');

// ---- facts ----

function facts() {
  const fact = (name, value, why = '') => el('div', {}, el('dt', {}, name), el('dd', {}, value, el('span', { class: 'why' }, why)));
  const sliding = data.layers.filter(layer => layer.attention === 'sliding');
  at('facts').replaceChildren(
    fact('Architecture', el('small', {}, data.architecture)), fact('Layers', count.format(data.n_layers), sliding.length ? `${sliding.length} look back ${count.format(sliding[0].window)} tokens only` : 'all alike'),
    fact('Width', count.format(data.d_model), `MLP ${count.format(data.d_mlp)}`), fact('Heads', count.format(data.heads), `${count.format(data.kv_heads)} with keys and values, ${count.format(data.head_dim)} wide`),
    fact('Vocabulary', count.format(data.vocab_size), 'tokens'), fact('Parameters', count.format(data.parameters), data.parallel ? 'attention and MLP read the same residual' : 'the MLP reads what attention wrote'),
  );
}

// ---- the drawing: rows by how far a part is from the tokens, residual on the left ----

const WIDE = 148, HIGH = 30, ACROSS = 172, DOWN = 52;
const PLACES = {
  tokens: [0, 0], embed: [0, 1], resid_pre: [0, 2], ln1: [1, 2.6], q: [1, 3.6], k: [2, 3.6], v: [3, 3.6], pattern: [1.5, 4.6], z: [2.2, 5.6], attn_out: [1, 6.4],
  resid_mid: [0, 7.2], ln2: [1, 7.8], mlp_out: [1, 8.8], resid_post: [0, 9.6], ln_final: [0, 10.6], logits: [0, 11.6],
};

function graph() {
  const known = data.nodes.filter(node => PLACES[node.id]);
  const others = data.nodes.filter(node => !PLACES[node.id]).map((node, n) => [node.id, [4, n + 1]]);
  const places = new Map([...known.map(node => [node.id, PLACES[node.id]]), ...others]);
  const middle = id => { const [x, y] = places.get(id); return [10 + x * ACROSS + WIDE / 2, 10 + y * DOWN + HIGH / 2]; };
  const width = 20 + WIDE + ACROSS * Math.max(...[...places.values()].map(([x]) => x));
  const height = 20 + HIGH + DOWN * Math.max(...[...places.values()].map(([, y]) => y));
  const drawing = svg('svg', { class: 'plot map', viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': `Computation graph: ${data.nodes.length} parts. The tables below name each.` });
  const [, top] = middle('resid_pre'), [, bottom] = middle('resid_post');
  drawing.append(svg('rect', { class: 'block', x: 2, y: top - HIGH / 2 - 8, width: width - 4, height: bottom - top + HIGH + 16, rx: 8 }), svg('text', { class: 'lab', x: width - 12, y: top - HIGH / 2 + 8, 'text-anchor': 'end' }, `block, ${data.n_layers} times`));
  for (const [from, to] of data.edges) if (places.has(from) && places.has(to)) drawing.append(edge(from, to, middle(from), middle(to)));
  for (const node of data.nodes) drawing.append(part(node, middle(node.id)));
  at('graph').replaceChildren(el('div', { class: 'scroll-x' }, drawing));
}

function edge(from, to, [x1, y1], [x2, y2]) {
  const residual = from.startsWith('resid') && to.startsWith('resid');
  if (y2 < y1) return svg('path', { class: 'edge back', d: `M${x1 - WIDE / 2} ${y1}H4V${y2}H${x2 - WIDE / 2}` }); // into the next layer
  const begin = x1 === x2 || y2 - y1 > HIGH ? [x1, y1 + HIGH / 2] : [x1 + WIDE / 2, y1];
  const end = x1 === x2 ? [x2, y2 - HIGH / 2] : x2 < x1 ? [x2 + WIDE / 2, y2] : [x2, y2 - HIGH / 2];
  return svg('path', { class: `edge${residual ? ' main' : ''}`, d: `M${begin[0]} ${begin[1]}C${begin[0]} ${(begin[1] + end[1]) / 2} ${x2 < x1 ? end[0] + 30 : end[0]} ${x2 < x1 ? end[1] : (begin[1] + end[1]) / 2} ${end[0]} ${end[1]}` });
}

function part(node, [x, y]) {
  const pick = () => { search.value = node.id; look(); document.getElementById('hooks-title').scrollIntoView({ block: 'nearest' }); };
  const key = event => { if (event.key === 'Enter' || event.key === ' ') { pick(); event.preventDefault(); } };
  return svg('g', { class: `node kind-${node.kind}`, tabindex: 0, role: 'button', 'aria-label': `${node.label}: show its hook`, 'data-words': `${node.id} ${node.label} ${node.kind}`.toLowerCase(), onclick: pick, onkeydown: key },
    svg('rect', { x: x - WIDE / 2, y: y - HIGH / 2, width: WIDE, height: HIGH, rx: 5 }), svg('text', { x, y: y + 4, 'text-anchor': 'middle' }, node.label));
}

// ---- tables ----

function table(columns, rows) {
  const head = el('tr', {}, ...columns.map(name => el('th', { scope: 'col' }, name)));
  return el('table', { class: 'table' }, el('thead', {}, head), el('tbody', {}, ...rows));
}

const line = (words, ...cells) => el('tr', { 'data-words': words.join(' ').toLowerCase() }, ...cells.map(cell => el('td', {}, cell)));
const code = text => el('code', { class: 'code-path' }, text);
const sizes = shapes => Object.entries(shapes).map(([name, shape]) => `${name} ${shaped(shape)}`).join(', ');

function tables() {
  const can = hook => el('span', { class: 'cluster' }, ...hook.can.map(word => el('span', { class: 'tag' }, word)));
  const hooks = data.hooks.map(hook => line([hook.name, hook.path, hook.side, shaped(hook.shape), ...hook.can], code(hook.name), el('span', {}, code(hook.path), el('span', { class: 'faint small' }, ` ${hook.side}`)), el('span', { class: 'nowrap num-left' }, shaped(hook.shape)), can(hook)));
  at('hooks').replaceChildren(table(['Hook', 'Module', 'Shape', 'Can'], hooks));
  const modules = data.modules.map(module => line([module.path, module.class, sizes(module.shapes)], code(module.path || '(the whole model)'), module.class, el('span', { class: 'small' }, sizes(module.shapes) || '–'), el('span', { class: 'num' }, count.format(module.parameters))));
  at('modules').replaceChildren(table(['Path', 'Class', 'Weights', 'Parameters'], modules));
  at('hook-tools').replaceChildren(...exportButtons({ title: 'hooks', file: 'hooks', rows: () => [['hook', 'module', 'side', 'shape', 'can'], ...data.hooks.map(h => [h.name, h.path, h.side, h.shape.join(' x '), h.can.join(' ')])] }));
  at('module-tools').replaceChildren(...exportButtons({ title: 'modules', file: 'modules', rows: () => [['path', 'class', 'weights', 'parameters'], ...data.modules.map(m => [m.path, m.class, sizes(m.shapes), m.parameters])] }));
}

// ---- search ----

const search = at('search');

/** Layers are written as `{layer}`: a number in what is searched for means the same. */
const meant = text => text.trim().toLowerCase().replace(/(blocks|layers|h)\.\d+/g, '$1.{layer}').split(/\s+/).filter(Boolean);

function look() {
  const words = meant(search.value);
  let shown = 0;
  for (const row of document.querySelectorAll('[data-words]')) {
    const hit = words.every(word => row.dataset.words.includes(word));
    if (row.tagName === 'TR') {
      row.hidden = !hit;
      shown += hit;
    } else row.classList.toggle('is-lit', hit && words.length > 0);
  }
  at('none').hidden = shown > 0;
  at('count').textContent = words.length ? `${shown} hooks and modules` : '';
}

facts();
graph();
tables();
search.addEventListener('input', look);
