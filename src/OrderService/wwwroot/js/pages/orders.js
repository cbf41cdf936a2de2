import { html, useEffect, useState } from '../html.js';
import { link, setQuery } from '../router.js';
import { get, segment } from '../api.js';
import { useList, useOrderEvents, usePolled } from '../live.js';
import { amount, count, plural, shown } from '../format.js';
import { Card, Chip, Empty, Fact, Facts, Given, Loading, MoreRows, PageHead, Tabs, Time, Trouble, Waiting } from '../parts/basics.js';
import { Timeline } from '../parts/timeline.js';
import { Why } from '../parts/why.js';
import { SearchBox } from './incidents.js';

const statuses = { all: 'All', placed: 'Placed', paid: 'Paid', shipped: 'Shipped', delivered: 'Delivered', cancelled: 'Cancelled' };

/** How an order's money and goods stand, where its state alone does not say it. */
const Partial = ({ order }) => html`
  ${order.held && html` <${Chip} state="held" />`}
  ${['authorized', 'partly_paid', 'overpaid', 'partly_refunded', 'refunded'].includes(order.paymentStatus) && html` <${Chip} state=${order.paymentStatus} />`}
  ${['partly_fulfilled', 'partly_returned', 'returned'].includes(order.fulfillmentStatus) && html` <${Chip} state=${order.fulfillmentStatus} />`}`;

const pieces = lines => lines.map(line => `${line.quantity} × ${shown(line.lineId)}`).join(', ');

/** What is in the order, and where the pieces are. */
function Lines({ data }) {
  const moved = data.lines.some(line => line.shipped || line.cancelled || line.returned);
  // Below the article, not in columns of their own: those do not fit a phone.
  const where = line => [['Open', line.open], ['Shipped', line.shipped], ['Cancelled', line.cancelled], ['Returned', line.returned]]
    .filter(([, pieces]) => pieces > 0).map(([word, pieces]) => `${word} ${count(pieces)}`).join(', ');
  const extra = (name, value) => html`<tr><th scope="row">${name}</th><td></td><td class="number">${value}</td></tr>`;
  return html`<${Card} title=${plural(data.lines.length, 'line')}><table class="plain"><caption class="hidden">Lines of the order</caption>
    <thead><tr><th scope="col">Article</th><th scope="col" class="number">Quantity</th><th scope="col" class="number">Price</th></tr></thead>
    <tbody>${data.lines.slice(0, 100).map(line => html`<tr key=${line.lineId}><td><span class="mono">${shown(line.sku)}</span>${line.name && html` ${shown(line.name)}`}${line.discount > 0 && html` <span class="quiet">less ${amount(line.discount, data.currency)}</span>`}${moved && html`<span class="under">${where(line)}</span>`}</td>
      <td class="number">${count(line.quantity)}</td><td class="number">${amount(line.unitPrice, data.currency)}</td></tr>`)}</tbody>
    <tfoot>${data.shippingCost > 0 && extra('Shipping', amount(data.shippingCost, data.currency))}
      ${data.discounts.map((discount, index) => html`<tr key=${index}><th scope="row">Discount${discount.code && html` ${shown(discount.code)}`}</th><td></td><td class="number">−${amount(discount.amount, data.currency)}</td></tr>`)}
      ${data.taxes.map((tax, index) => html`<tr key=${`t${index}`}><th scope="row">Tax ${tax.rate} %${tax.included ? ', included' : ''}</th><td></td><td class="number">${amount(tax.amount, data.currency)}</td></tr>`)}
      <tr><th scope="row">Total</th><td></td><td class="number"><b>${amount(data.total, data.currency)} ${shown(data.currency)}</b></td></tr></tfoot></table>${data.lines.length > 100 && html`<p class="quiet">The first 100 are shown.</p>`}<//>`;
}

/** Payments and refunds, shipments and returns, where there are several or something is not plain. */
function MoneyAndGoods({ data }) {
  const rows = [
    ...(data.payments.length > 1 || data.refunds.length > 0 ? data.payments.map(payment => ['Payment', payment.paymentReference, amount(payment.amount, data.currency)]) : []),
    ...data.refunds.map(refund => ['Refund', refund.refundReference, `−${amount(refund.amount, data.currency)}`]),
    ...(data.shipments.length > 1 || data.fulfillmentStatus !== 'fulfilled' ? data.shipments.map(shipment => [shipment.delivered ? 'Delivered' : 'Shipment', shipment.shipmentId, `${pieces(shipment.lines)}${shipment.trackingNumber ? ` (${shown(shipment.trackingNumber)})` : ''}`]) : []),
    ...data.returns.map(back => ['Return', back.returnId, pieces(back.lines)]),
  ];
  return rows.length > 0 && html`<${Card} title="Money and goods"><table class="plain"><caption class="hidden">Payments, refunds, shipments and returns</caption>
    <tbody>${rows.map(([what, name, value], index) => html`<tr key=${index}><th scope="row">${what}</th><td class="mono">${shown(name)}</td><td class="number">${value}</td></tr>`)}</tbody></table><//>`;
}

export function Orders({ query }) {
  const status = statuses[query.status] ? query.status : 'all';
  const list = useList('/api/orders', { status: status === 'all' ? undefined : status, customerId: query.q || query.customerId }, item => item.orderId);
  const exact = useExact(query.q);
  const items = [...(exact && !(list.items ?? []).some(item => item.orderId === exact.orderId) ? [exact] : []), ...(list.items ?? [])];
  return html`
    <${PageHead} title="Orders" sub="Search finds an order by its id, or a customer’s orders by the customer’s id." />
    <div class="filters">
      <${Tabs} label="States of orders" items=${Object.entries(statuses).map(([name, text]) => ({ text, href: link('/orders', { ...query, status: name === 'all' ? undefined : name }), current: name === status }))} />
      <${SearchBox} value=${query.q ?? query.customerId} label="Order id or customer id" />
    </div>
    <${Waiting} list=${list} one="order" many="orders" />
    <${Trouble} error=${list.error} kept=${list.items !== null} />
    ${!list.items && !list.error && html`<${Loading} what="Loading orders" />`}
    ${list.items && items.length === 0 && html`<${Empty} icon="orders" title=${query.q ? 'No order and no customer of that id' : 'No order here'}>${query.q ? html`The message may have become a dead letter: <a href=${link('/dead-letters', { status: 'all', q: query.q })}>look among the letters</a>.` : html`Publish some: <code>orderservice publish --sample 100</code>`}<//>`}
    ${items.length > 0 && html`<table class="rows"><caption class="hidden">Orders, newest first</caption><thead><tr><th scope="col">Order</th><th scope="col">Customer</th><th scope="col" class="number">Total</th><th scope="col" class="number">Lines</th><th scope="col" class="number">Events</th><th scope="col">Placed</th><th scope="col">Changed</th><th scope="col">State</th></tr></thead>
      <tbody>${items.map(order => html`<tr key=${order.orderId} data-row>
        <th scope="row" data-label="Order"><a class="mono" data-row-link href=${link(`/orders/${segment(order.orderId)}`)}>${shown(order.orderId)}</a></th>
        <td data-label="Customer"><a class="plain-link" href=${link('/orders', { q: order.customerId })}>${shown(order.customerId)}</a></td>
        <td class="number" data-label="Total">${amount(order.total, order.currency)} ${shown(order.currency)}</td>
        <td class="number" data-label="Lines">${count(order.lineCount ?? order.lines?.length)}</td>
        <td class="number" data-label="Events">${count(order.version)}</td>
        <td data-label="Placed"><${Time} at=${order.placedAt ?? order.recordedAt} /></td>
        <td data-label="Changed"><${Time} at=${order.updatedAt} /></td>
        <td data-label="State"><${Chip} state=${order.status} /><${Partial} order=${order} /></td></tr>`)}</tbody></table>`}
    <${MoreRows} list=${list} />`;
}

/** The order whose id was searched for, if there is one. */
function useExact(id) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    setFound(null);
    if (!id || !/^[A-Za-z0-9._-]{1,64}$/.test(id)) {
      return undefined;
    }
    const stop = new AbortController();
    get(`/api/orders/${segment(id)}`, { signal: stop.signal }).then(setFound, () => {});
    return () => stop.abort();
  }, [id]);
  return found;
}

export function Order({ id, query }) {
  const order = usePolled(`/api/orders/${segment(id)}`, 10000);
  const timeline = usePolled(`/api/orders/${segment(id)}/timeline`, 5000);
  useOrderEvents(() => {
    order.refresh();
    timeline.refresh();
  }, event => event.orderId === id || event.subject === id);
  const { data } = order;
  const missing = order.error?.status === 404;
  return html`
    <${PageHead} title=${html`Order <span class="mono">${shown(id)}</span>`} back=${{ href: link('/orders'), text: 'Orders' }} sub=${data && html`<${Chip} state=${data.status} /><${Partial} order=${data} /> <span class="quiet">version ${data.version}</span>`} />
    ${missing ? html`<p class="note tone-warn">There is no such order yet: no message that placed it was accepted.</p>` : html`<${Trouble} error=${order.error} kept=${data !== null} />`}
    <div class="split">
      <div class="split-main">
        ${data?.lines && html`<${Lines} data=${data} /><${MoneyAndGoods} data=${data} />`}
        <${Card} title="Everything that happened">
          <${Trouble} error=${timeline.error} kept=${timeline.data !== null} />
          ${!timeline.data && !timeline.error && html`<${Loading} what="Loading the timeline" />`}
          ${timeline.data?.items.length === 0 && html`<${Empty} icon="clock" title="Nothing yet" />`}
          ${timeline.data?.items.length > 0 && html`<${Timeline} items=${timeline.data.items} view=${query.view} hrefOf=${view => link(`/orders/${segment(id)}`, { ...query, view })} />`}
        <//>
      </div>
      <aside class="split-side" aria-label="About this order">
        ${data && html`<${Card} title="Facts"><${Facts}>
          <${Fact} name="Customer"><a href=${link('/orders', { q: data.customerId })}>${shown(data.customerId)}</a><//>
          <${Fact} name="Total">${amount(data.total, data.currency)} ${shown(data.currency)}<//>
          <${Fact} name="State"><${Chip} state=${data.status} /><//>
          ${data.recordedAt && html`<${Fact} name="Recorded"><${Time} at=${data.recordedAt} /><//>`}
          ${data.placedAt && html`<${Fact} name="Placed by the customer"><${Time} at=${data.placedAt} /><//>`}
          ${data.updatedAt && html`<${Fact} name="Changed"><${Time} at=${data.updatedAt} /><//>`}
          ${data.paymentReference && html`<${Fact} name="Paid">${amount(data.paid, data.currency)} ${shown(data.currency)}<//>
            ${data.overpaid > 0
              ? html`<${Fact} name="Overpaid"><b>${amount(data.overpaid, data.currency)} ${shown(data.currency)}</b><//>`
              : html`<${Fact} name="Still due">${amount(data.due, data.currency)} ${shown(data.currency)}<//>`}`}
          ${data.paymentReference && html`<${Fact} name="Last payment"><${Given} text=${data.paymentReference} /><//>`}
          ${data.authorized > 0 && html`<${Fact} name="May be captured">${amount(data.authorized, data.currency)} ${shown(data.currency)}<//>`}
          ${data.refunded > 0 && html`<${Fact} name="Refunded">${amount(data.refunded, data.currency)} ${shown(data.currency)}<//>`}
          ${data.held && html`<${Fact} name="Held because"><${Given} text=${data.holdReason} /><//>`}
          ${data.channel && html`<${Fact} name="Channel"><${Given} text=${data.channel} /><//>`}
          ${Object.entries(data.externalReferences).map(([name, text]) => html`<${Fact} key=${name} name=${shown(name)}><${Given} text=${text} /><//>`)}
          ${Object.entries(data.attributes).map(([name, text]) => html`<${Fact} key=${name} name=${shown(name)}><${Given} text=${text} /><//>`)}
          ${data.carrier && html`<${Fact} name="Carrier"><${Given} text=${data.carrier} /><//>`}
          ${data.trackingNumber && html`<${Fact} name="Tracking"><${Given} text=${data.trackingNumber} /><//>`}
          ${data.forgotten && html`<${Fact} name="Customer">forgotten: what was personal is gone<//>`}
          ${data.name && html`<${Fact} name="Name"><${Given} text=${data.name} /><//>`}
          ${data.email && html`<${Fact} name="E-mail"><${Given} text=${data.email} /><//>`}
          ${data.phone && html`<${Fact} name="Phone"><${Given} text=${data.phone} /><//>`}
          ${data.billingAddress && html`<${Fact} name="Bill to"><${Given} text=${addressLine(data.billingAddress)} /><//>`}
          ${data.shippingAddress && html`<${Fact} name="Ship to"><${Given} text=${addressLine(data.shippingAddress)} /><//>`}
          ${data.cancelReason && html`<${Fact} name="Cancelled because"><${Given} text=${data.cancelReason} /><//>`}
        <//><p><a href=${link('/dead-letters', { orderId: id, status: 'all' })}>Dead letters of this order</a></p><//>`}
        <${Why} id=${id} version=${`${data?.version}${timeline.data?.items.length}`} />
      </aside>
    </div>`;
}

/** In one line; where the caller may not see it, what the service says instead. */
function addressLine(address) {
  return typeof address === 'string'
    ? address
    : [address.name, address.company, ...address.lines, [address.postalCode, address.city].filter(Boolean).join(' '), address.region, address.country].filter(Boolean).join(', ');
}
