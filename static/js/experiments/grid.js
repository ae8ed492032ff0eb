// Sweeps and searches: the map, the trade-off of behaviour and coherence, and the point to work with.
import { icon } from '../base.js';
import { button, csv, el, fixed, panel, range, save, savePng, saveUrl, tableOf } from './dom.js';
import { heatMap, mapKey } from './heatmap.js';
import { drawTradeoff, plotPng } from './tradeoff.js';

const MEASURES = { behaviour: 'Behaviour', coherence: 'Coherence', variety: 'Variety', words: 'Words' };
const COLUMNS = ['condition', 'layer', 'strength', 'behaviour', 'low', 'high', 'change', 'coherence', 'perplexity', 'variety', 'wrong way', 'prompts'];
const open = { map: false, plot: false }; // which panels show their table

export function drawGrid(page) {
  const parts = [mapPanel(page), plotPanel(page), workingPoint(page)];
  page.figures.replaceChildren(el('div', { class: 'cols-exp' }, ...parts));
  const chart = page.figures.querySelector('.tradeoff');
  if (chart && !open.plot) drawTradeoff(chart, tradeoffOf(page));
}

const valueOf = (cell, measure) => (measure === 'behaviour' ? cell.behaviour.mean : cell[measure]);

// ---- the map ----

function mapPanel(page) {
  const { settings, findings, measure } = page;
  const strengths = page.recipe === 'sweep' ? settings.strengths : [...new Set(findings.cells.map(cell => cell.strength))].sort((a, b) => a - b);
  const groups = new Map();
  for (const cell of findings.cells) {
    const key = `${cell.vector} ${cell.operation}`;
    groups.set(key, [...(groups.get(key) ?? []), cell]);
  }
  const maps = [...groups.values()].map(cells => {
    const several = groups.size > 1 ? el('h3', {}, `${page.vectors[cells[0].vector]}, ${cells[0].operation}`) : null;
    return el('div', { class: 'map-group' }, several, heatMap({
      title: MEASURES[measure], layers: settings.layers, strengths, chosen: page.chosen, best: findings.best,
      running: page.active, pick: group => page.choose(group), cells: cells.map(cell => drawn(page, cell)),
    }));
  });
  const body = open.map ? [asTable(page)] : [...maps, mapKey({ floor: settings.floor, running: page.active })];
  const title = measure === 'behaviour' ? 'Behaviour' : MEASURES[measure];
  const sub = { behaviour: `${settings.behaviour.unit || settings.behaviour.says}, mean of ${settings.prompts.length} prompts`, coherence: '1 is as coherent as the base', variety: 'share of word pairs that are different ones', words: 'of an answer, mean' }[measure];
  return panel('hm', title, sub, [chooser(page), ...tools(page, 'map', () => savePng(`${page.file('map')}.png`, page.figures.querySelector('.scroll-x svg')))], ...body);
}

function drawn(page, cell) {
  const value = valueOf(cell, page.measure);
  const below = cell.coherent ? '' : ', below the floor';
  return {
    layer: cell.layer, strength: cell.strength, group: cell.group, value, low: !cell.coherent,
    shown: value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2),
    label: `Layer ${cell.layer}, strength ${cell.strength}: behaviour ${fixed(cell.behaviour.mean)}, coherence ${fixed(cell.coherence)}${below}`,
  };
}

function chooser(page) {
  const options = Object.entries(MEASURES).map(([value, name]) => el('label', {}, el('input', { type: 'radio', name: 'measure', value, checked: page.measure === value, onchange: () => page.setMeasure(value) }), el('span', {}, name)));
  return el('fieldset', { class: 'seg', 'aria-label': 'Measure' }, ...options);
}

function tools(page, which, png) {
  const toggle = button('Table', 'Show the figures as a table', () => { open[which] = !open[which]; page.draw(); });
  toggle.setAttribute('aria-pressed', String(open[which]));
  const own = open[which] ? [] : [button('PNG', 'Download the picture', png)];
  return [toggle, button('CSV', 'Download the figures', () => save(`${page.file('cells')}.csv`, 'text/csv', csv(COLUMNS, rowsOf(page)))), ...own];
}

function rowsOf(page) {
  return page.conditions.map(cell => [page.nameOf(cell), cell.layer ?? '', cell.strength ?? '', cell.behaviour.mean, cell.behaviour.low, cell.behaviour.high, cell.change.mean, cell.coherence, cell.perplexity, cell.variety, cell.wrong.length, cell.n]);
}

function asTable(page) {
  return el('div', { class: 'table-wrap as-table', role: 'region', tabindex: 0, 'aria-label': 'All conditions as a table' }, tableOf(COLUMNS, rowsOf(page)));
}

// ---- the trade-off ----

function plotPanel(page) {
  const chart = el('div', { class: 'tradeoff', role: 'img', 'aria-label': describe(page) });
  const key = el('div', { class: 'key' }, el('span', {}, '● best trade-offs'), el('span', {}, '○ others'), el('span', {}, '■ base'), page.findings.prompting && el('span', {}, '◆ prompting'), page.findings.steered && el('span', {}, '★ proved, held out'));
  const png = async () => saveUrl(`${page.file('trade-off')}.png`, await plotPng(chart, 720, 480));
  return panel('pf', 'Behaviour against coherence', `One mark per finished cell; right is better, and ${page.settings.behaviour.better === 'higher' ? 'up' : 'down'}`, tools(page, 'plot', png), ...(open.plot ? [asTable(page)] : [chart, key]));
}

function tradeoffOf(page) {
  const { findings, settings } = page;
  const marks = [['base', findings.base ?? findings.tuning_base], ['prompting', findings.prompting], ['steered', findings.steered]]
    .filter(([, cell]) => cell).map(([kind, cell]) => ({ kind, x: cell.coherence, y: cell.behaviour.mean, name: kind }));
  return {
    cells: findings.cells.map(cell => ({ x: cell.coherence, y: cell.behaviour.mean, group: cell.group, name: page.nameOf(cell) })),
    front: findings.front, marks, band: findings.null, floor: settings.floor, chosen: page.chosen || findings.best,
    label: settings.behaviour.unit || 'behaviour', pick: group => page.choose(group),
  };
}

function describe({ findings, settings }) {
  const said = [`Behaviour against coherence of ${findings.cells.length} cells. The coherence floor is ${settings.floor}.`];
  const best = findings.steered ?? findings.cells.find(cell => cell.group === findings.best);
  if (best) said.push(`The best, layer ${best.layer} at ${best.strength}, has behaviour ${fixed(best.behaviour.mean)} at coherence ${fixed(best.coherence)}.`);
  if (findings.prompting) said.push(`Prompting has ${fixed(findings.prompting.behaviour.mean)} at ${fixed(findings.prompting.coherence)}.`);
  if (findings.null) said.push(`${findings.null.count} random directions stay between ${range(findings.null)}.`);
  return said.join(' ');
}

// ---- the working point ----

function workingPoint(page) {
  const { findings } = page;
  const best = findings.steered ?? findings.cells.find(cell => cell.group === findings.best);
  if (!best) return panel('wp', 'Recommended working point', '', [], el('p', { class: 'muted' }, findings.sentence ?? (page.active ? 'None yet.' : 'No cell stayed above the coherence floor. Try smaller strengths, or lower the floor.')));
  const lines = [['Steered', best.behaviour], ['Prompting', findings.prompting?.behaviour], ['Base', (findings.base ?? findings.tuning_base)?.behaviour], ['Random', findings.null]];
  const versus = lines.filter(([, found]) => found).map(([name, found], i) => el('div', {}, el('dt', {}, name), el('dd', {}, i ? fixed(found.mean) : el('b', {}, fixed(found.mean)), ' ', el('small', {}, range(found)))));
  const body = [
    el('p', { class: 'working-point' }, el('span', { class: 'lane-1 lane-key', 'aria-hidden': 'true' }, 'B'), `L${best.layer} · ${best.strength}×`),
    el('dl', { class: 'versus' }, ...versus), el('ul', { class: 'why-list' }, ...reasons(page, best)),
  ];
  if (findings.sentence) body.push(el('p', { class: 'verdict muted' }, el('span', { class: `tag ${findings.verdict === 'works' ? 'tag-ok' : 'tag-warn'}` }, findings.verdict === 'works' ? 'works' : findings.verdict === 'weak' ? 'weak' : 'does not work'), ' ', findings.sentence));
  if (page.active) body.push(el('div', { class: 'notice' }, icon('clock'), el('span', {}, `Provisional: ${page.status.total - page.status.done} points to come.`)));
  const actions = [el('a', { class: 'btn', href: `${page.root.dataset.evaluate}&layer=${best.layer}&strength=${best.strength}` }, 'Evaluate it')];
  if (page.mine) actions.unshift(presetButton(best));
  return panel('wp', 'Recommended working point', findings.steered ? 'measured on held-out prompts' : 'most of the behaviour above the floor; not yet proved on held-out prompts', [], ...body, el('div', { class: 'cluster' }, ...actions));
}

export function presetButton(cell, small = false) {
  const form = document.getElementById('preset-form');
  const press = () => { form.elements.group.value = cell.group; form.submit(); };
  return el('button', { class: small ? 'btn btn-sm' : 'btn btn-primary', type: 'button', onclick: press }, icon('save'), 'Make a preset');
}

function reasons({ findings, settings }, best) {
  const line = (good, text) => el('li', { class: good ? '' : 'is-warn' }, icon(good ? 'check' : 'warn'), el('span', {}, text));
  const kept = findings.prompting ? ` Prompting keeps ${fixed(findings.prompting.coherence)}.` : '';
  const found = [line(best.coherent, `Coherence ${fixed(best.coherence)}, floor ${settings.floor}.${kept}`)];
  const { null: chance, over_prompting: over } = findings;
  if (chance) found.push(line(chance.p < 0.05, `Beats ${chance.beaten} of ${chance.count} random directions of equal norm; p = ${chance.p.toFixed(3)}.`));
  if (over) {
    const [more, less] = [over.low > 0, over.high < 0];
    found.push(line(!less, `${more ? 'Brings more than' : less ? 'Loses to' : 'Cannot be told from'} the system prompt: ${range(over)} in the wanted direction.`));
  }
  found.push(line(!best.wrong.length, best.wrong.length ? `${best.wrong.length} of ${best.n} prompts go the wrong way; they are marked below.` : `No prompt of ${best.n} goes the wrong way.`));
  return found;
}
