// Numbers and tokens as these pages say them.

/** Spaces and line ends of a token made visible. */
export const visible = text => text.replaceAll('\n', '⏎').replaceAll('\r', '␍').replaceAll('\t', '⇥').replaceAll(' ', '␣') || '(empty)';

/** A token as people read it in a row of tokens: no mark for the space that begins most of them. */
export const readable = text => (text.trim() ? text.replaceAll('\n', '⏎').replaceAll('\r', '␍').replaceAll('\t', '⇥').replace(/^ /, '') : visible(text));

/** Plotly reads its own small markup in labels, and tokens may hold anything: what would begin a tag is taken out. */
export const plain = text => text.replaceAll('&', '＆').replaceAll('<', '‹').replaceAll('>', '›').replaceAll('$', '＄').replaceAll('\\', '＼');

export const signed = (value, digits = 3) => (Number.isFinite(value) ? `${value > 0 ? '+' : value < 0 ? '−' : ''}${Math.abs(value).toFixed(digits)}` : '–');

export const short = (text, most = 14) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export const percent = value => (value >= 0.0995 ? `${Math.round(value * 100)} %` : `${(value * 100).toFixed(1)} %`);
