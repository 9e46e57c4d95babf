// What a wallet made with bitcoinjs-lib does: it has addresses, and builds and signs transactions. It knows nothing of dunlin. One question a
// run, as JSON in the argument; the answer is JSON on standard output. Keys are fixed: they are for tests.
import * as bitcoin from 'bitcoinjs-lib'
import * as ecc from '@bitcoinerlab/secp256k1'
import { ECPairFactory } from 'ecpair'

bitcoin.initEccLib(ecc)
const ECPair = ECPairFactory(ecc)
const network = bitcoin.networks.regtest

const keyOf = (n) => ECPair.fromPrivateKey(new Uint8Array(32).fill(n), { network })
const xOnly = (key) => key.publicKey.subarray(1, 33)
const key = keyOf(1)
const leafKey = keyOf(2)
const otherKey = keyOf(3)
const checkSig = (k) => ({ output: bitcoin.script.compile([xOnly(k), bitcoin.opcodes.OP_CHECKSIG]) })
const redeem = { ...checkSig(leafKey), redeemVersion: 192 }

const payments = {
  p2wpkh: bitcoin.payments.p2wpkh({ pubkey: key.publicKey, network }),
  'p2tr-key': bitcoin.payments.p2tr({ internalPubkey: xOnly(key), network }),
  'p2tr-script': bitcoin.payments.p2tr({ internalPubkey: xOnly(key), scriptTree: [checkSig(leafKey), checkSig(otherKey)], redeem, network }),
  'p2wsh-multisig': bitcoin.payments.p2wsh({
    redeem: bitcoin.payments.p2ms({ m: 2, pubkeys: [key, leafKey, otherKey].map((k) => k.publicKey), network }), network
  })
}

// spend signs a transaction of all coins to one address. A coin says its kind, txid, vout and value.
function spend ({ coins, to, fee }) {
  const psbt = new bitcoin.Psbt({ network })
  let sum = 0n
  for (const c of coins) {
    const payment = payments[c.kind]
    const input = { hash: c.txid, index: c.vout, witnessUtxo: { script: payment.output, value: BigInt(c.value) } }
    if (c.kind === 'p2tr-key') input.tapInternalKey = xOnly(key)
    if (c.kind === 'p2tr-script') {
      input.tapLeafScript = [{ leafVersion: 192, script: redeem.output, controlBlock: payment.witness[payment.witness.length - 1] }]
    }
    if (c.kind === 'p2wsh-multisig') input.witnessScript = payment.redeem.output
    psbt.addInput(input)
    sum += BigInt(c.value)
  }
  psbt.addOutput({ address: to, value: sum - BigInt(fee) })
  coins.forEach((c, i) => {
    switch (c.kind) {
      case 'p2tr-key':
        psbt.signInput(i, key.tweak(bitcoin.crypto.taggedHash('TapTweak', xOnly(key))))
        break
      case 'p2tr-script':
        psbt.signInput(i, leafKey)
        break
      case 'p2wsh-multisig':
        psbt.signInput(i, key)
        psbt.signInput(i, otherKey)
        break
      default:
        psbt.signInput(i, key)
    }
  })
  psbt.finalizeAllInputs()
  const tx = psbt.extractTransaction()
  return { hex: tx.toHex(), txid: tx.getId() }
}

const question = JSON.parse(process.argv[2])
const answer = question.op === 'addresses'
  ? Object.fromEntries(Object.entries(payments).map(([kind, p]) => [kind, p.address]))
  : spend(question)
process.stdout.write(JSON.stringify(answer) + '\n')
