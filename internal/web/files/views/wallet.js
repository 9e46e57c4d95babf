// The node's wallet.
import { html } from '../lib.js';
import { Missing } from '../ui.js';

export const Wallet = () => html`<${Missing} what="a wallet" route="/api/v1/wallet" />`;
