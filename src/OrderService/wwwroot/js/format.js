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

/** `1,149.70` of a decimal string, exactly as it came but for the grouping. */
export function amount(text) {
  const match = /^(-?)(\d+)(\.\d+)?$/.exec(String(text ?? ''));
  return match ? `${match[1]}${match[2].replace(/\B(?=(\d{3})+(?!\d))/g, ',')}${match[3] ?? ''}` : String(text ?? '–');
}

export const money = value => (value ? `${amount(value.amount)} ${value.currency}` : '–');

/** `3 min 20 s` of seconds. */
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
    return `${Math.round(seconds)} s ago`;
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

export const sentence = reason => String(reason ?? '').replaceAll('_', ' ');
