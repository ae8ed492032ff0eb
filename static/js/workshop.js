// The workshop's stage: a persona, a beginning, and two texts that are written side by side.
const form = document.querySelector('[data-stage]');
const theme = document.querySelector('[data-theme-toggle]');
const say = (part, text) => { document.querySelector(`[data-${part}]`).textContent = text; };
let running = null; // what is being written now
let seed = null; // kept while only the dials move, so that what changes is the dial's doing
let later = 0;

theme.addEventListener('click', () => {
  const root = document.documentElement;
  root.dataset.bsTheme = root.dataset.bsTheme === 'dark' ? 'light' : 'dark';
});

function chosen() {
  return form.querySelector('[name=steering]:checked');
}

function tell() {
  say('strength', `${Number(form.strength.value).toFixed(1)}×`);
  say('temperature', Number(form.temperature.value).toFixed(1));
  say('length', `${form.max_length.value} tokens`);
  say('name', chosen() ? chosen().closest('.persona').querySelector('b').textContent : 'Steered');
}

function asked() {
  return {
    prompt: form.prompt.value,
    steering: chosen()?.value ?? null,
    strength: Number(form.strength.value),
    temperature: Number(form.temperature.value),
    max_length: Number(form.max_length.value),
    seed,
    stream: true,
  };
}

function screen(lane) {
  return document.querySelector(`[data-lane=${lane}]`);
}

async function write({ again = false } = {}) {
  if (!form.prompt.value.trim()) return form.prompt.focus();
  running?.abort();
  const mine = running = new AbortController();
  if (!again || seed === null) seed = crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  for (const lane of ['base', 'steered']) {
    const begun = document.createElement('b');
    begun.textContent = form.prompt.value;
    screen(lane).replaceChildren(begun);
    screen(lane).classList.add('is-writing');
  }
  say('state', '');
  try {
    const response = await fetch(form.dataset.url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-CSRFToken': document.querySelector('[name=csrfmiddlewaretoken]').value },
      body: JSON.stringify(asked()),
      signal: mine.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error);
    for await (const event of events(response.body)) show(event);
  } catch (error) {
    if (mine.signal.aborted) return;
    say('state', error instanceof TypeError ? 'No connection to the server. Try again.' : error.message);
  }
  if (running !== mine) return;
  running = null;
  for (const lane of ['base', 'steered']) screen(lane).classList.remove('is-writing');
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const frames = held.split('\n\n');
    held = frames.pop();
    for (const frame of frames) if (frame.startsWith('data: ')) yield JSON.parse(frame.slice(6));
  }
}

function show(event) {
  if (event.status === 'error') throw new Error(event.message);
  if (event.status === 'progress') screen(event.lane).append(event.text);
}

if (form) {
  form.inert = false; // until somebody listens, clicks would be lost
  tell();
  form.addEventListener('submit', event => { event.preventDefault(); write(); });
  form.addEventListener('input', event => {
    tell();
    if (event.target.type !== 'range' || seed === null) return;
    clearTimeout(later);
    later = setTimeout(() => write({ again: true }), 250);
  });
  form.addEventListener('change', event => { if (event.target.name === 'steering' && seed !== null) write({ again: true }); });
  for (const chip of form.querySelectorAll('[data-prompt]')) {
    chip.addEventListener('click', () => {
      form.prompt.value = chip.dataset.prompt;
      const persona = form.querySelector(`[name=steering][value=${chip.dataset.of}]`);
      if (persona && !persona.disabled) persona.checked = true;
      tell();
      write();
    });
  }
}
