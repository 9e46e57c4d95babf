import { html } from '../lib.js';
export const Wallet = () => html`<p></p>`;
