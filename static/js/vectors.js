// The vector pages: figures by layer on the detail page, what a dataset is on the build page.
import './copy.js';
import { drawFigures } from './plots.js';

function figuresOf({ name, stats, recommended, sink_from: sinkFrom }) {
  const column = field => stats.map(row => row[field]);
  const shared = {
    x: { label: 'layer', values: column('layer') },
    pick: recommended,
    shade: sinkFrom === null ? null : { from: sinkFrom, label: 'attention sink' },
  };
  const file = what => `${name.toLowerCase().replace(/[^a-z0-9]+/g, '-')}-${what}`;
  const one = (title, field, what, range) => ({
    ...shared, title, file: file(what), digits: 2, range, series: [{ name: title, values: column(field), kind: 'main' }],
  });
  return [
    one('Held-out AUC', 'auc', 'auc', [Math.min(0.5, ...column('auc')) - 0.03, 1.03]),
    one('d′, held out', 'd_prime', 'd-prime'),
    one('Split-half cosine', 'split_half', 'split-half', [Math.min(0, ...column('split_half')) - 0.03, 1.03]),
    {
      ...shared, title: 'Norm, log scale', file: file('norms'), digits: 1, log: true,
      series: [
        { name: 'vector', values: column('norm'), kind: 'main' },
        { name: 'residual, median', values: column('residual_norm'), kind: 'dash' },
        { name: 'largest token (sink)', values: column('sink_norm'), kind: 'dot' },
      ],
    },
  ];
}

const figures = document.querySelector('[data-plots]');
if (figures) drawFigures(figures, figuresOf(JSON.parse(document.getElementById(figures.dataset.plots).textContent)));

const datasets = document.getElementById('id_dataset');
if (datasets) {
  const about = document.querySelector('[data-dataset-about]');
  const name = document.getElementById('id_name');
  const describe = () => {
    const { about: text = '', name: title = '' } = datasets.selectedOptions[0].dataset;
    about.textContent = text;
    name.placeholder = title || 'as the dataset';
  };
  const chooseMethod = () => {
    if (datasets.selectedOptions[0].dataset.kind === 'caa') document.querySelector('input[name=method][value=caa]').checked = true;
  };
  datasets.addEventListener('change', () => { describe(); chooseMethod(); });
  describe();
}

// What can be read depends on the model: where there are several, the form follows the choice.
const models = document.getElementById('id_model');
if (models) {
  const chat = document.querySelector('input[name=chat]');
  const hint = document.querySelector('[data-template-hint]');
  const why = 'Shows the prompt as the user’s turn and each side as the assistant’s. Match what you will steer.';
  const describe = () => {
    const { layers, template } = models.selectedOptions[0].dataset;
    document.getElementById('id_layer').placeholder = String(Math.floor(Number(layers) * 2 / 5));
    document.querySelector('[data-all-layers]').textContent = Number(layers) ? `, 0 to ${layers - 1}` : '';
    chat.disabled = template === 'no' && Number(layers) > 0;
    chat.checked &&= !chat.disabled;
    hint.textContent = chat.disabled ? `${models.value} has none.` : why;
  };
  models.addEventListener('change', describe);
  describe();
}
