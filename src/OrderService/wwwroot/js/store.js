import { useState, useEffect } from './html.js';
import { own } from './base.js';

/** A value that parts of the page share and are redrawn with. */
export class Shared {
  constructor(value) {
    this.value = value;
    this.readers = new Set();
  }

  set(value) {
    if (Object.is(value, this.value)) {
      return;
    }
    this.value = value;
    for (const reader of [...this.readers]) {
      reader(value);
    }
  }

  use() {
    // The value itself never goes through useState: it may be a function, which useState would call.
    const [, redraw] = useState(null);
    const seen = this.value;
    useEffect(() => {
      const reader = () => redraw({});
      this.readers.add(reader);
      if (!Object.is(seen, this.value)) {
        reader();
      }
      return () => this.readers.delete(reader);
    }, []);
    return seen;
  }
}

/** Settings of this browser; storage may be switched off. */
export const remember = {
  get(name) {
    try {
      return localStorage.getItem(own(name));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) {
        localStorage.removeItem(own(name));
      } else {
        localStorage.setItem(own(name), value);
      }
    } catch {
      // The choice then lasts as long as the page.
    }
  },
};
