import { useState, useEffect } from './html.js';

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
    const [value, setValue] = useState(this.value);
    useEffect(() => {
      this.readers.add(setValue);
      setValue(this.value);
      return () => this.readers.delete(setValue);
    }, []);
    return value;
  }
}

/** Settings of this browser; storage may be switched off. */
export const remember = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) {
        localStorage.removeItem(name);
      } else {
        localStorage.setItem(name, value);
      }
    } catch {
      // The choice then lasts as long as the page.
    }
  },
};
