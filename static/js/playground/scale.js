// What a strength means: its units, its limits on the slider, and how one unit becomes the other.
import { figure } from './dom.js';

const RELATIVE_MAX = 1;

/** Operations whose strength is in a unit of lengths; the others count shares, positions between examples, degrees. */
export const HAS_UNIT = new Set(['add', 'clamp', 'cap', 'floor']);

/** One relative unit in raw ones at a layer: the median residual norm over the length of the direction. */
export function rawPerRelative(vector, layer) {
  const residual = vector?.residual_norms?.[layer], norm = vector?.norms?.[layer];
  return residual && norm ? residual / norm : null;
}

export function convert(value, vector, layer, to, from = '') {
  if (vector?.feature) return convertFeature(value, vector, from, to);
  const ratio = rawPerRelative(vector, layer);
  if (!ratio) return value;
  const moved = to === 'raw' ? value * ratio : value / ratio;
  return Number(moved.toPrecision(3));
}

/** Raw units of a feature that one of `unit` is worth, or null while that is not known. */
export const rawPerUnit = (feature, unit) => (unit === 'raw' ? 1 : unit === 'max' ? feature.max : feature.residual) || null;

function convertFeature(value, feature, from, to) {
  const one = rawPerUnit(feature, from), other = rawPerUnit(feature, to);
  if (!one || !other) return { max: 1, relative: 0.3, raw: 1 }[to];
  return Number((value * one / other).toPrecision(3));
}

function boundsOfFeature({ unit }, feature) {
  if (unit === 'relative') return { min: -RELATIVE_MAX, max: RELATIVE_MAX, step: 0.05, mark: null };
  if (unit === 'max') return { min: -5, max: 5, step: 0.1, mark: 1 };
  const most = feature.max ? feature.max * 5 : feature.residual ?? 100;
  const step = 10 ** Math.floor(Math.log10(most)) / 20;
  const max = Math.ceil(most / step) * step;
  return { min: -max, max, step, mark: feature.max };
}

/** { min, max, step, mark } of the slider for an intervention. */
export function bounds(intervention, vector) {
  if (intervention.operation === 'ablate') return { min: 0, max: 1, step: 0.05, mark: 1 };
  if (vector?.feature) return boundsOfFeature(intervention, vector);
  if (intervention.operation === 'affine') return { min: -1, max: 2, step: 0.05, mark: 1 };
  if (intervention.operation === 'rotate') return { min: 0, max: 180, step: 5, mark: null };
  const recommended = vector && intervention.operation === (vector.recommended_operation ?? 'add') ? vector.recommended_strength : null;
  if (intervention.unit === 'relative') return { min: -RELATIVE_MAX, max: RELATIVE_MAX, step: 0.05, mark: recommended };
  const ratio = rawPerRelative(vector, intervention.layer) ?? 10;
  const step = 10 ** Math.floor(Math.log10(ratio)) / 20;
  const max = Math.ceil(RELATIVE_MAX * ratio / step) * step;
  return { min: -max, max, step, mark: recommended === null ? null : recommended * ratio };
}

/** "0.45×", "3.6 raw", "80 %" */
export function strengthText(intervention) {
  if (!intervention.on) return 'off';
  if (intervention.operation === 'ablate') return `ablate ${figure(intervention.strength)}`;
  if (intervention.operation === 'affine') return `affine ${figure(intervention.strength)}`;
  if (intervention.operation === 'rotate') return `rotate ${figure(intervention.strength, 0)}°`;
  const unit = intervention.unit === 'relative' ? '×' : intervention.unit === 'max' ? ' max' : ' raw';
  const operation = intervention.operation === 'add' ? '' : `${intervention.feature && intervention.operation === 'clamp' ? 'set' : intervention.operation} `;
  return `${operation}${figure(intervention.strength)}${unit}`;
}

/** What is written under the slider: [{ text, ok }]. */
export function notes(intervention, vector) {
  if (vector?.feature) return notesOfFeature(intervention, vector);
  if (intervention.operation === 'ablate') return [{ text: `Removes ${figure(intervention.strength * 100, 0)} % of the component along this direction` }];
  if (intervention.operation === 'affine') return [affineNote(intervention.strength, vector, intervention.layer)];
  if (intervention.operation === 'rotate') return [{ text: rotateNote(intervention.strength) }];
  const lines = [];
  if (vector) {
    const wanted = vector.recommended_operation ?? 'add';
    const here = intervention.operation === wanted && intervention.layer === vector.recommended_layer && Math.abs(relative(intervention, vector) - vector.recommended_strength) < 0.005;
    lines.push(here ? { text: 'As recommended', ok: true } : { text: `Recommended: ${recommendation(vector)} at L${vector.recommended_layer}` });
  }
  const other = otherUnit(intervention, vector);
  if (other) lines.push({ text: other });
  return lines;
}

/** "0.3×", "clamp 0.3×", "affine 1": what a vector begins with. */
export function recommendation(vector) {
  const operation = vector.recommended_operation ?? 'add', dose = figure(vector.recommended_dose ?? vector.recommended_strength);
  return operation === 'affine' ? `affine ${dose}` : `${operation === 'add' ? '' : `${operation} `}${dose}×`;
}

const DOES = { add: 'Adds', clamp: 'Sets its activation to', floor: 'Raises its activation to at least', cap: 'Limits its activation to' };

function notesOfFeature({ operation, strength, unit }, feature) {
  if (operation === 'ablate') return [{ text: `Removes ${figure(strength * 100, 0)} % of its activation; the autoencoder’s error stays` }];
  const raw = rawPerUnit(feature, unit);
  const lines = [{ text: raw ? `${DOES[operation]} ${figure(strength * raw, 2)} raw${operation === 'add' && feature.residual ? `, ${figure(strength * raw / feature.residual, 2)}× the residual norm` : ''}` : `${DOES[operation]} ${figure(strength)} ${unit === 'max' ? 'of its maximum' : unit === 'relative' ? '× the residual norm' : 'raw'}` }];
  if (feature.max) lines.push({ text: `Largest seen: ${figure(feature.max, 2)}` });
  else if (!feature.indexed) lines.push({ text: 'Its maximum is not known: no corpus is indexed' });
  return lines;
}

function affineNote(alpha, vector, layer) {
  if (vector?.map_layers?.includes(layer)) return { text: alpha === 1 ? 'Applies the map as it was trained' : `Applies ${figure(alpha)} of the trained map; 1 is as it was trained`, ok: alpha === 1 };
  if (vector && !vector.affine_layers?.includes(layer)) return { text: `Not possible at L${layer}: the vector does not say where its negative examples lie. Build it again, or use clamp` };
  const place = alpha === 0 ? 'where the negative examples lie' : alpha === 1 ? 'where the positive examples lie' : `${figure(alpha)} of the way from the negative examples (0) to the positive ones (1)`;
  return { text: `Puts every token ${place}` };
}

function rotateNote(degrees) {
  const end = degrees === 0 ? ', along it' : degrees === 90 ? ', none of it left' : degrees === 180 ? ', against it' : degrees < 90 ? ': 0° is along it, 90° none of it' : ': 90° is none of it, 180° against it';
  return `Turns the residual to ${figure(degrees, 0)}° from the vector${end}`;
}

function relative(intervention, vector) {
  return intervention.unit === 'relative' ? intervention.strength : convert(intervention.strength, vector, intervention.layer, 'relative');
}

function otherUnit(intervention, vector) {
  const residual = vector?.residual_norms?.[intervention.layer];
  if (!residual || !rawPerRelative(vector, intervention.layer)) return '';
  const { strength, layer } = intervention;
  if (intervention.unit === 'relative') return `${figure(convert(strength, vector, layer, 'raw'))} raw, a norm of ${figure(strength * residual, 1)}`;
  return `${figure(convert(strength, vector, layer, 'relative'))}× the median residual norm`;
}
