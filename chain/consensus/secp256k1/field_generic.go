package secp256k1

import "math/bits"

// mulFieldGeneric sets z to x·y, on every processor.
func mulFieldGeneric(z, x, y *field) {
	y0, y1, y2, y3 := y[0], y[1], y[2], y[3]
	var c uint64

	// The product of eight words, r0 to r7, one word of x at a time: first the low
	// halves of its four products, then, one place up, the high ones.
	a := x[0]
	h0, r0 := bits.Mul64(a, y0)
	h1, l1 := bits.Mul64(a, y1)
	r1, c := bits.Add64(h0, l1, 0)
	h2, l2 := bits.Mul64(a, y2)
	r2, c := bits.Add64(h1, l2, c)
	h3, l3 := bits.Mul64(a, y3)
	r3, c := bits.Add64(h2, l3, c)
	r4 := h3 + c

	a = x[1]
	h0, l0 := bits.Mul64(a, y0)
	r1, c = bits.Add64(r1, l0, 0)
	h1, l1 = bits.Mul64(a, y1)
	r2, c = bits.Add64(r2, l1, c)
	h2, l2 = bits.Mul64(a, y2)
	r3, c = bits.Add64(r3, l2, c)
	h3, l3 = bits.Mul64(a, y3)
	r4, c = bits.Add64(r4, l3, c)
	r5 := h3 + c
	r2, c = bits.Add64(r2, h0, 0)
	r3, c = bits.Add64(r3, h1, c)
	r4, c = bits.Add64(r4, h2, c)
	r5 += c

	a = x[2]
	h0, l0 = bits.Mul64(a, y0)
	r2, c = bits.Add64(r2, l0, 0)
	h1, l1 = bits.Mul64(a, y1)
	r3, c = bits.Add64(r3, l1, c)
	h2, l2 = bits.Mul64(a, y2)
	r4, c = bits.Add64(r4, l2, c)
	h3, l3 = bits.Mul64(a, y3)
	r5, c = bits.Add64(r5, l3, c)
	r6 := h3 + c
	r3, c = bits.Add64(r3, h0, 0)
	r4, c = bits.Add64(r4, h1, c)
	r5, c = bits.Add64(r5, h2, c)
	r6 += c

	a = x[3]
	h0, l0 = bits.Mul64(a, y0)
	r3, c = bits.Add64(r3, l0, 0)
	h1, l1 = bits.Mul64(a, y1)
	r4, c = bits.Add64(r4, l1, c)
	h2, l2 = bits.Mul64(a, y2)
	r5, c = bits.Add64(r5, l2, c)
	h3, l3 = bits.Mul64(a, y3)
	r6, c = bits.Add64(r6, l3, c)
	r7 := h3 + c
	r4, c = bits.Add64(r4, h0, 0)
	r5, c = bits.Add64(r5, h1, c)
	r6, c = bits.Add64(r6, h2, c)
	r7 += c

	// A word from r4 on is worth foldP times the word four places down.
	h0, l0 = bits.Mul64(r4, foldP)
	h1, l1 = bits.Mul64(r5, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, l1, c)
	h2, l2 = bits.Mul64(r6, foldP)
	r2, c = bits.Add64(r2, l2, c)
	h3, l3 = bits.Mul64(r7, foldP)
	r3, c = bits.Add64(r3, l3, c)
	h3 += c
	r1, c = bits.Add64(r1, h0, 0)
	r2, c = bits.Add64(r2, h1, c)
	r3, c = bits.Add64(r3, h2, c)
	// h3 + c is below 2^34: once more.
	h0, l0 = bits.Mul64(h3+c, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, h0, c)
	r2, c = bits.Add64(r2, 0, c)
	r3, c = bits.Add64(r3, 0, c)
	// A carry now leaves less than 2^67.
	r0, c = bits.Add64(r0, foldP&-c, 0)
	z[0], z[1], z[2], z[3] = r0, r1+c, r2, r3
}

// squareFieldGeneric sets z to x·x, on every processor.
func squareFieldGeneric(z, x *field) {
	x0, x1, x2, x3 := x[0], x[1], x[2], x[3]
	var c uint64
	// Products of different words, once.
	r2, r1 := bits.Mul64(x0, x1)
	h02, l02 := bits.Mul64(x0, x2)
	h03, l03 := bits.Mul64(x0, x3)
	r2, c = bits.Add64(r2, l02, 0)
	r3, c := bits.Add64(h02, l03, c)
	r4 := h03 + c
	h12, l12 := bits.Mul64(x1, x2)
	h13, l13 := bits.Mul64(x1, x3)
	h23, l23 := bits.Mul64(x2, x3)
	r3, c = bits.Add64(r3, l12, 0)
	r4, c = bits.Add64(r4, h12, c)
	r5 := c
	r4, c = bits.Add64(r4, l13, 0)
	r5, c = bits.Add64(r5, h13, c)
	r6 := c
	r5, c = bits.Add64(r5, l23, 0)
	r6 += h23 + c
	// Twice.
	r7 := r6 >> 63
	r6 = r6<<1 | r5>>63
	r5 = r5<<1 | r4>>63
	r4 = r4<<1 | r3>>63
	r3 = r3<<1 | r2>>63
	r2 = r2<<1 | r1>>63
	r1 <<= 1
	// Squares.
	h0, r0 := bits.Mul64(x0, x0)
	h1, l1 := bits.Mul64(x1, x1)
	h2, l2 := bits.Mul64(x2, x2)
	h3, l3 := bits.Mul64(x3, x3)
	r1, c = bits.Add64(r1, h0, 0)
	r2, c = bits.Add64(r2, l1, c)
	r3, c = bits.Add64(r3, h1, c)
	r4, c = bits.Add64(r4, l2, c)
	r5, c = bits.Add64(r5, h2, c)
	r6, c = bits.Add64(r6, l3, c)
	r7 += h3 + c

	// A word from r4 on is worth foldP times the word four places down.
	h0, l0 := bits.Mul64(r4, foldP)
	h1, l1 = bits.Mul64(r5, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, l1, c)
	h2, l2 = bits.Mul64(r6, foldP)
	r2, c = bits.Add64(r2, l2, c)
	h3, l3 = bits.Mul64(r7, foldP)
	r3, c = bits.Add64(r3, l3, c)
	h3 += c
	r1, c = bits.Add64(r1, h0, 0)
	r2, c = bits.Add64(r2, h1, c)
	r3, c = bits.Add64(r3, h2, c)
	// h3 + c is below 2^34: once more.
	h0, l0 = bits.Mul64(h3+c, foldP)
	r0, c = bits.Add64(r0, l0, 0)
	r1, c = bits.Add64(r1, h0, c)
	r2, c = bits.Add64(r2, 0, c)
	r3, c = bits.Add64(r3, 0, c)
	// A carry now leaves less than 2^67.
	r0, c = bits.Add64(r0, foldP&-c, 0)
	z[0], z[1], z[2], z[3] = r0, r1+c, r2, r3
}
