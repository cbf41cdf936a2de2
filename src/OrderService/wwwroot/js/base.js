/** The folder that the page lies in: the root of its host or, behind a proxy, a path such as `/orders/`. Told by where this file came from, whatever the address bar says. */
const base = new URL('..', import.meta.url);

/** The address of one of the service's own paths, which begin with '/'. It never leaves the folder: what lies beside it belongs to other applications. */
export const at = path => {
  const { pathname, search } = new URL(`.${path}`, base);
  return pathname + search;
};

/** A name in what all applications of a host share (storage, channels, locks). */
export const own = name => `orderservice${base.pathname}${name}`;
