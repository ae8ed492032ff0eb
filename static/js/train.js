// The form that trains an autoencoder: what an architecture is, and how long it will all take.
const form = document.querySelector('[data-estimate]');
const TOPK = ['batchtopk', 'topk', 'matryoshka_batchtopk'];
const WAIT_MS = 250;
let waiting, asked = 0;

function told() {
  const fields = new FormData(form);
  const file = form.elements.file.files[0];
  const picked = [...form.querySelectorAll('[name=datasets]:checked')];
  return new URLSearchParams({
    ...Object.fromEntries(['layer', 'width', 'steps', 'batch'].map(name => [name, fields.get(name) ?? ''])),
    chats: fields.get('chats') || '0', model: fields.get('model') ?? '', characters: String(file?.size ?? 0),
    pairs: String(picked.reduce((sum, box) => sum + Number(box.dataset.pairs), 0)),
  });
}

async function estimate() {
  const turn = ++asked;
  try {
    const response = await fetch(`${form.dataset.estimate}?${told()}`, { headers: { Accept: 'application/json' } });
    const { says } = await response.json();
    if (turn === asked) form.querySelector('[data-estimate-says]').textContent = says;
  } catch {
    // no estimate, then: the job tells its own once it runs
  }
}

function draw() {
  const chosen = form.elements.architecture.selectedOptions[0];
  form.querySelector('p[data-says]').textContent = chosen.dataset.says;
  form.dataset.sparsity = TOPK.includes(chosen.value) ? 'k' : 'penalty';
}

form?.addEventListener('input', () => {
  draw();
  clearTimeout(waiting);
  waiting = setTimeout(estimate, WAIT_MS);
});
if (form) {
  draw();
  estimate();
}
