// Preact and htm under one name. Children and attributes set through them are text or DOM properties: nothing in this page ever parses markup.
import { h, render, Fragment } from '../vendor/preact.js';
import htm from '../vendor/htm.js';

export const html = htm.bind(h);
export { render, Fragment };
export { useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback } from '../vendor/preact-hooks.js';
