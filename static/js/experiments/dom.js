// Small makers of elements, shared by the experiment pages.
import { icon } from '../base.js';

const SVG = 'http://www.w3.org/2000/svg';

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined && child !== false));
  return made;
}

export function button(text, label, onclick, name = '') {
  return el('button', { class: 'btn btn-sm', type: 'button', 'aria-label': label, onclick }, ...(name ? [icon(name)] : []), text);
}

export function panel(id, title, sub, tools = [], ...body) {
  const heading = el('h2', { id }, title);
  if (sub) heading.append(' ', el('span', { class: 'sub' }, sub));
  return el('section', { class: 'panel', 'aria-labelledby': id }, el('div', { class: 'panel-head' }, heading, el('div', { class: 'figure-tools' }, ...tools)), el('div', { class: 'panel-body stack' }, ...body));
}

export const fixed = (value, digits = 2) => value.toFixed(digits);
export const range = ({ low, high }, digits = 2) => `${fixed(low, digits)} to ${fixed(high, digits)}`;

/** Colours of the page by token, for figures drawn by script. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const token = name => style.getPropertyValue(`--${name}`).trim();
  return {
    lane: token('lane-1'), prompt: token('lane-prompt'), base: token('lane-base'), text: token('text'), muted: token('text-muted'),
    faint: token('text-faint'), line: token('line'), strong: token('line-strong'), control: token('line-control'),
    surface: token('surface-1'), shade: token('surface-2'), over: token('surface-over'), font: getComputedStyle(document.body).fontFamily,
  };
}

export function tableOf(columns, rows) {
  const head = el('thead', {}, el('tr', {}, ...columns.map(name => el('th', {}, name))));
  const body = el('tbody', {}, ...rows.map(cells => el('tr', {}, ...cells.map(cell => el('td', { class: typeof cell === 'number' ? 'num' : '' }, typeof cell === 'number' ? String(cell) : cell ?? '–')))));
  return el('table', { class: 'table' }, head, body);
}

export function save(name, kind, text) {
  saveUrl(name, URL.createObjectURL(new Blob([text], { type: kind })));
}

export function saveUrl(name, url) {
  el('a', { href: url, download: name }).click();
  if (url.startsWith('blob:')) setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export function csv(columns, rows) {
  const cell = value => (typeof value === 'string' ? `"${value.replaceAll('"', '""')}"` : value ?? '');
  return `${[columns, ...rows].map(cells => cells.map(cell).join(',')).join('\n')}\n`;
}

const DRAWN = ['fill', 'stroke', 'stroke-width', 'stroke-dasharray', 'opacity', 'font-size', 'font-family', 'font-weight', 'text-anchor'];

/** An SVG of the page as a PNG of twice its size, colours included. */
export async function savePng(name, drawing) {
  const box = drawing.viewBox.baseVal;
  const copy = drawing.cloneNode(true);
  const from = [drawing, ...drawing.querySelectorAll('*')];
  [copy, ...copy.querySelectorAll('*')].forEach((node, i) => {
    const style = getComputedStyle(from[i]);
    for (const property of DRAWN) node.setAttribute(property, style.getPropertyValue(property));
    node.removeAttribute('class');
  });
  copy.setAttribute('width', box.width * 2);
  copy.setAttribute('height', box.height * 2);
  const source = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  saveUrl(name, await rasterize(source, box.width, box.height));
}

/** An SVG as a data: address, drawn at twice its size on the page's colour: the data: address of a PNG. */
export async function rasterize(source, width, height) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = el('canvas', { width: width * 2, height: height * 2 });
  const pen = canvas.getContext('2d');
  pen.fillStyle = colours().surface;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL('image/png');
}
