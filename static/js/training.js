// The curves of an autoencoder's training: of a job that runs, drawn again whenever jobs.js hears of it, or as kept.
import { drawFigures } from './plots.js';

const place = document.querySelector('[data-train-curves]');
const words = document.querySelector('[data-train-facts]');
const FIGURES = [
  { at: 1, title: 'Loss', name: 'squared error per token', file: 'loss', digits: 2 },
  { at: 3, title: 'Explained variance', name: 'of a batch', file: 'explained-variance', digits: 3 },
  { at: 2, title: 'L0', name: 'features on at a token', file: 'l0', digits: 1 },
  { at: 4, title: 'Dead features', name: 'not on for 200,000 tokens', file: 'dead', digits: 0 },
];
let drawn = '', figures;

function figuresOf(curve) {
  const steps = curve.map(([step]) => step);
  return FIGURES.map(({ at, title, name, file, digits }) => ({
    title, file: `${place.dataset.trainCurves}-${file}`, digits, x: { label: 'step', values: steps },
    series: [{ name, values: curve.map(point => point[at]), kind: 'main' }],
  }));
}

function sentence({ step, steps, loss, l0, explained_variance: explained, dead, width, resumed }) {
  const parts = [
    steps ? `step ${step.toLocaleString('en')} of ${steps.toLocaleString('en')}` : '',
    Number.isFinite(loss) ? `loss ${loss.toFixed(1)}` : '', Number.isFinite(l0) ? `L0 ${l0.toFixed(1)}` : '',
    Number.isFinite(explained) ? `explains ${(100 * explained).toFixed(1)} %` : '',
    Number.isFinite(dead) && width ? `${dead} of ${width} dead` : '',
    Number.isFinite(resumed) ? `gone on with from step ${resumed}` : '',
  ];
  return parts.filter(Boolean).join(' · ');
}

function show(facts) {
  const curve = (facts.curve ?? []).filter(point => point.every(Number.isFinite));
  if (!curve.length) return;
  if (words && 'phase' in facts) words.textContent = sentence(facts);
  const now = JSON.stringify(curve.at(-1));
  if (now === drawn) return;
  drawn = now;
  const wanted = figuresOf(curve);
  if (figures) figures.forEach((figure, i) => figure.update(wanted[i]));
  else figures = drawFigures(place, wanted);
}

document.addEventListener('steerboard:job', ({ detail }) => show(detail.facts ?? {}));
show(JSON.parse(document.getElementById('facts').textContent));
