const numbers = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const absolute = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

export const count = value => (value === null || value === undefined ? '–' : numbers.format(value));

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** A rate with as many digits as it deserves. */
export function rate(value) {
  if (value === null || value === undefined) {
    return '–';
  }
  return value === 0 ? '0' : value < 10 ? value.toFixed(1) : numbers.format(Math.round(value));
}

/** How many decimals a currency has; two for one the browser does not know. */
function decimals(currency) {
  try {
    return new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits;
  } catch {
    return 2;
  }
}

/** `1,149.70` of a decimal string, exactly as it came but for the grouping; a number gets its currency's decimals. */
export function amount(value, currency) {
  const text = typeof value === 'number' ? value.toFixed(decimals(currency)) : String(value ?? '');
  const match = /^(-?)(\d+)(\.\d+)?$/.exec(text);
  return match ? `${match[1]}${match[2].replace(/\B(?=(\d{3})+(?!\d))/g, ',')}${match[3] ?? ''}` : text || '–';
}

export const money = value => (value ? `${amount(value.amount, value.currency)} ${value.currency}` : '–');

/** Amounts of several currencies in a sentence, the largest numbers first. */
export function sums(values, most = 3) {
  const all = [...(values ?? [])].sort((a, b) => Number(b.amount) - Number(a.amount));
  const named = all.slice(0, most).map(money);
  const more = all.length - named.length;
  return more > 0 ? `${named.join(', ')} and ${more} more ${more === 1 ? 'currency' : 'currencies'}` : named.length > 1 ? `${named.slice(0, -1).join(', ')} and ${named.at(-1)}` : named.join('');
}

/** `3 min 20 s` of seconds. */
/** How long a single message took: milliseconds where a second is too coarse. */
export function took(seconds) {
  return seconds === null || seconds === undefined || seconds >= 10 ? duration(seconds)
    : seconds >= 1 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds * 1000)} ms`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) {
    return '–';
  }
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) {
    return `${whole} s`;
  }
  if (whole < 3600) {
    return whole % 60 && whole < 600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 60)} min`;
  }
  if (whole < 86400) {
    const minutes = Math.floor((whole % 3600) / 60);
    return minutes ? `${Math.floor(whole / 3600)} h ${minutes} min` : `${Math.floor(whole / 3600)} h`;
  }
  return `${Math.floor(whole / 86400)} d`;
}

export const ageSeconds = (time, now) => (time ? (now - Date.parse(time)) / 1000 : null);

export function relative(time, now) {
  const seconds = ageSeconds(time, now);
  if (seconds === null || Number.isNaN(seconds)) {
    return '–';
  }
  if (seconds < -5) {
    return `in ${duration(-seconds)}`;
  }
  if (seconds < 5) {
    return 'just now';
  }
  if (seconds < 60) {
    return `${Math.floor(seconds)} s ago`;
  }
  if (seconds < 3600) {
    return `${Math.floor(seconds / 60)} min ago`;
  }
  if (seconds < 86400) {
    return `${Math.floor(seconds / 3600)} h ago`;
  }
  return seconds < 30 * 86400 ? plural(Math.floor(seconds / 86400), 'day') + ' ago' : day.format(new Date(time));
}

export function absoluteTime(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? String(time) : `${absolute.format(date)} here, ${date.toISOString()}`;
}

export const clockTime = time => clock.format(new Date(time));

export function bytes(size) {
  if (size === null || size === undefined) {
    return '–';
  }
  return size < 1024 ? `${size} bytes` : size < 1024 * 1024 ? `${(size / 1024).toFixed(1)} KiB` : `${(size / 1024 / 1024).toFixed(1)} MiB`;
}

// Characters that are not seen, or that turn the text around them: an attacker's favourites. They are shown by their code.
const unseen = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Text of a message as a person may safely read it. */
export const shown = text => String(text ?? '').replace(unseen, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** `1.0.0+abd7afa` of a version with a whole commit id. */
export const build = version => shown(version).replace(/(\+[0-9a-f]{7})[0-9a-f]+$/, '$1');

export const sentence = reason => String(reason ?? '').replaceAll('_', ' ');
