// The heat maps of an attribution: layer by position for each site, layer by head for what heads have.
import { el } from '../experiments/dom.js';
import { Heat } from './heat.js';
import { readable, signed } from './words.js';

const TITLES = {
  resid_pre: ['resid', 'residual stream before the layer'], resid_post: ['resid_post', 'residual stream after the layer'],
  attn_out: ['attn_out', 'what attention adds'], mlp_out: ['mlp_out', 'what the MLP adds'],
  z: ['heads', 'output of each head'], q: ['queries', 'of each head'], k: ['keys', 'of each head that has keys'], v: ['values', 'of each head that has keys'],
};
const HEADS = ['z', 'q', 'k', 'v'];

export function drawMaps(root, tools, page) {
  const { found } = page;
  const maps = Object.entries(found.sites).map(([site, scores]) => (HEADS.includes(site) ? new HeadMap(site, scores, page) : new PlaceMap(site, scores, page)));
  root.replaceChildren(...maps.map(map => map.root));
  if (maps.some(map => map instanceof HeadMap) && found.by_position !== false) tools.replaceChildren(whichTokens(maps, page));
  maps.forEach(map => { map.draw(); page.follow(map); });
  return () => maps.forEach(map => map.draw());
}

/** The maps of heads are of all tokens together, or of the one that is chosen. */
function whichTokens(maps, page) {
  const one = el('input', { type: 'radio', name: 'head-tokens', value: 'one' });
  const name = el('span', {}, 'the chosen token');
  const pick = () => maps.forEach(map => map.narrow?.(one.checked));
  const all = el('input', { type: 'radio', name: 'head-tokens', value: 'all', checked: true, onchange: pick });
  one.addEventListener('change', pick);
  page.follow({ choose: place => { name.textContent = place?.position === undefined || place?.position === null ? 'the chosen token' : `token ${place.position}`; } });
  return el('div', { class: 'cluster' }, el('span', { class: 'small faint' }, 'Heads at'), el('div', { class: 'seg', role: 'radiogroup', 'aria-label': 'Heads at which tokens' }, el('label', {}, all, el('span', {}, 'all tokens')), el('label', {}, one, name)));
}

class PlaceMap extends Heat {
  constructor(site, scores, page) {
    const [title, note] = TITLES[site];
    const { found } = page;
    const placed = Array.isArray(scores[0]);
    super({
      title, note, file: `attribution-${site}`, z: placed ? scores : scores.map(value => [value]), rows: found.layers, digits: 3,
      columns: placed ? found.corrupted.tokens.map(([, text]) => readable(text)) : ['all tokens'], rowName: 'layer', columnName: 'token',
      says: (y, x, value) => `layer ${found.layers[y]}, ${placed ? `token ${x} ${page.tokenAt(x)}` : 'all tokens'}, ${signed(value)}`,
      hover: (y, x) => page.point(y === null ? null : this.place(y, x)), pick: (y, x) => page.choose(this.place(y, x)),
    });
    Object.assign(this, { site, page, placed });
  }

  place(y, x) {
    return { site: this.site, layer: this.rows[y], ...(this.placed ? { position: x } : {}) };
  }

  point(place) {
    if (place) this.mark({ row: place.position === undefined ? undefined : this.rows.indexOf(place.layer), column: place.position ?? undefined });
    else this.mark(this.kept);
  }

  choose(place) {
    const y = this.rows.indexOf(place?.layer);
    const ours = place?.site === this.site && y >= 0;
    this.kept = place && !ours && place.position !== undefined ? { column: place.position } : null; // a token that is followed
    this.mark(this.kept, ours ? [y, this.placed ? place.position ?? 0 : 0] : null);
    if (place?.position !== undefined) this.reveal(place.position);
  }
}

class HeadMap extends Heat {
  constructor(site, scores, page) {
    const [title, note] = TITLES[site];
    const { found } = page;
    const placed = Array.isArray(scores[0]?.[0]) || scores[0]?.[0] === null;
    const heads = Math.max(...scores.map(row => (placed ? Math.max(0, ...row.map(cell => cell?.length ?? 0)) : row.length)));
    const summed = placed ? scores.map(row => total(row, heads)) : scores;
    super({
      title, note, file: `attribution-heads-${site}`, z: summed, rows: found.layers, digits: 3,
      columns: Array.from({ length: heads }, (_, head) => String(head)), rowName: 'layer', columnName: 'head',
      says: (y, x, value) => `layer ${found.layers[y]}, head ${x}, ${signed(value)}`,
      hover: (y, x) => page.point(y === null ? null : this.place(y, x)), pick: (y, x) => page.choose(this.place(y, x)),
    });
    Object.assign(this, { site, page, placed, scores, summed, heads, position: null, narrowed: false });
  }

  place(y, x) {
    return { site: this.site, layer: this.rows[y], head: x, ...(this.narrowed && this.position !== null ? { position: this.position } : {}) };
  }

  /** Show the chosen token's heads alone, or all tokens' together. */
  narrow(narrowed) {
    this.narrowed = narrowed;
    this.refill();
  }

  refill() {
    const one = this.placed && this.narrowed && this.position !== null;
    this.z = one ? this.scores.map(row => row[this.position] ?? Array(this.heads).fill(null)) : this.summed;
    this.field.setAttribute('aria-label', this.label());
    this.top = Math.max(1e-12, ...this.z.flat().map(value => Math.abs(value ?? 0)));
    this.drawKey();
    this.table.replaceChildren();
    if (this.table.hidden) this.draw();
    else this.table.append(this.asTable());
  }

  point(place) {
    this.mark(place && place.head !== undefined && place.head !== null ? { row: this.rows.indexOf(place.layer), column: place.head } : null);
  }

  choose(place) {
    const y = this.rows.indexOf(place?.layer);
    const ours = place?.site === this.site && y >= 0 && place.head !== undefined && place.head !== null;
    const moved = (place?.position ?? null) !== this.position;
    this.position = place?.position ?? null;
    this.at = ours ? [y, place.head] : null;
    if (moved && this.narrowed) this.refill();
    else this.mark(null, this.at);
  }
}

function total(row, heads) {
  const sums = Array(heads).fill(0);
  for (const cell of row) cell?.forEach((value, head) => { sums[head] += value ?? 0; });
  return sums;
}
