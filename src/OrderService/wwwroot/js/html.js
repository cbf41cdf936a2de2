// Preact and htm under one name. Children and attributes set through them are text or DOM properties: nothing in this page ever parses markup.
import { h, options, render, Fragment } from '../vendor/preact.js';
import htm from '../vendor/htm.js';

// Translators and other extensions replace texts in the document; a text node that lies there no more would then be renewed for nobody to see. So no text is a node of
// Preact's own: an element that holds nothing but text gets it as its content, which replaces whatever lies in it, and a text among elements has an element of its own.
const drawings = new Set(['svg', 'path', 'g', 'rect', 'circle', 'line', 'polyline', 'polygon', 'text', 'use']);
const isText = child => typeof child === 'string' || typeof child === 'number';
const isNothing = child => child === null || child === undefined || typeof child === 'boolean';
const already = options.vnode;

options.vnode = vnode => {
  const { type, props } = vnode;
  if (type === null) {
    vnode.type = 'o-t';
    vnode.props = { textContent: String(props) };
  } else if (typeof type === 'string' && !drawings.has(type) && props.children !== undefined) {
    const children = Array.isArray(props.children) ? props.children : [props.children];
    if (children.some(isText) && children.every(child => isText(child) || isNothing(child))) {
      delete props.children;
      props.textContent = children.filter(isText).join('');
    }
  }
  already?.(vnode);
};

export const html = htm.bind(h);
export { render, Fragment };
export { useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback } from '../vendor/preact-hooks.js';
