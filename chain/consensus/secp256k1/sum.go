package secp256k1

// A multiple is how many times a point is meant: 128 bits, the least first.
type multiple [2]uint64

// terms are points and as many multiples.
type terms struct {
	points    []affine
	multiples []multiple
}

// set makes the two terms at i those of k times a (see split). It returns false if they
// were too long, which they never are.
func (t *terms) set(i int, a *affine, k *scalar) bool {
	k1, k2 := split(k)
	lambda := affine{y: a.y}
	lambda.x.mul(&a.x, &beta)
	return t.setShort(i, *a, &k1) && t.setShort(i+1, lambda, &k2)
}

// setShort makes the term at i that of k times a; k is less than 2^128 from 0 on one side
// or the other.
func (t *terms) setShort(i int, a affine, k *scalar) bool {
	if k.IsOverHalfOrder() {
		k = new(scalar).NegateVal(k)
		a.y.neg(&a.y)
	}
	w := words(k)
	t.points[i], t.multiples[i] = a, multiple{w[0], w[1]}
	return w[2]|w[3] == 0
}

// digit is one of the numbers d with k = Σ d[i]·2^(i·width), from −2^(width−1) to
// 2^(width−1); low is i·width (Booth's recoding: each is the bits there, the next lower one
// carried in, the highest one carried out).
func (k *multiple) digit(low, width int) int {
	var v uint64 // the bits from low−1 on
	switch at := low - 1; {
	case at < 0:
		v = k[0] << 1
	case at < 64:
		v = k[0]>>at | k[1]<<(64-at) // a shift by 64 gives 0
	default:
		v = k[1] >> (at - 64)
	}
	v &= 1<<(width+1) - 1
	return int((v+1)>>1) - int(v>>width<<width)
}

// sum returns Σ multiples[i]·points[i], by Pippenger's method: in each window of the
// multiples points with the same digit are summed up first, as affine ones as
// long as there are so many that one inversion for all of them pays. Each worker takes a
// window at a time.
func (t *terms) sum(crew Crew) (sum point) {
	n := len(t.points)
	width := 3
	for width < 12 && sumCost(n, width+1) < sumCost(n, width) {
		width++
	}
	windows := make([]point, 128/width+1)
	scratch := make([]*buckets, crew.workers())
	crew.inParts(len(windows), func(worker, at int) bool {
		if scratch[worker] == nil {
			scratch[worker] = newBuckets(n, 1<<(width-1))
		}
		b := scratch[worker]
		for i := range b.digits {
			b.digits[i] = int16(t.multiples[i].digit(at*width, width))
		}
		b.fill(t.points)
		for b.halve() {
		}
		windows[at] = b.sum()
		return true
	})
	sum.inf = true
	for at := len(windows) - 1; at >= 0; at-- {
		for range width {
			sum.double(&sum)
		}
		sum.add(&windows[at])
	}
	return sum
}

// sumCost is about how many multiplications it takes to sum up n points.
func sumCost(n, width int) int { return (128/width + 1) * (6*n + 27<<(width-1)) }

// buckets are points by digit.
type buckets struct {
	digits []int16  // of all points
	points []affine // those of a digit lie together
	from   []int    // by digit, where they do; there is none of digit 0
	many   []int    // by digit

	// Of each pair that halve sums up: by what is divided, then its inverse, and the product
	// of those before it.
	divisors, before []field
}

func newBuckets(points, most int) *buckets {
	return &buckets{
		digits: make([]int16, points),
		points: make([]affine, points),
		from:   make([]int, most+1), many: make([]int, most+1),
		divisors: make([]field, points/2), before: make([]field, points/2),
	}
}

// fill puts points in by their digits, those with one less than 0 negated.
func (b *buckets) fill(points []affine) {
	clear(b.many)
	for _, d := range b.digits {
		b.many[max(d, -d)]++
	}
	at := 0
	b.many[0] = 0
	for d, n := range b.many {
		b.from[d] = at
		at += n
	}
	clear(b.many)
	for i, d := range b.digits {
		if d == 0 {
			continue
		}
		abs := max(d, -d)
		p := &b.points[b.from[abs]+b.many[abs]]
		b.many[abs]++
		*p = points[i]
		if d < 0 {
			p.y.neg(&p.y)
		}
	}
}

// leastPairs is how many sums pay an inversion.
const leastPairs = 60

// halve sums up pairs of points of the same digit, and says whether there were enough.
func (b *buckets) halve() bool {
	pairs := 0
	for _, n := range b.many {
		pairs += n / 2
	}
	if pairs < leastPairs {
		return false
	}
	// Montgomery's trick: all are inverted by the inverse of their product. There are two
	// products, of every other one, so that neither multiplication waits for the one before it.
	product := [2]field{fieldOne, fieldOne}
	k := 0
	for d, n := range b.many {
		of := b.points[b.from[d]:][:n]
		for ; len(of) > 1; of = of[2:] {
			z := &b.divisors[k]
			z.sub(&of[1].x, &of[0].x)
			if z.isZero() { // the same point, or its opposite
				if z.add(&of[0].y, &of[1].y); z.isZero() {
					*z = fieldOne
				}
			}
			b.before[k] = product[k&1]
			product[k&1].mul(&product[k&1], z)
			k++
		}
	}
	var both field
	both.mul(&product[0], &product[1])
	both.inverse(&both)
	product[0], product[1] = product[1], product[0]
	product[0].mul(&product[0], &both)
	product[1].mul(&product[1], &both)
	for k--; k >= 0; k-- {
		z := b.divisors[k]
		b.divisors[k].mul(&product[k&1], &b.before[k])
		product[k&1].mul(&product[k&1], &z)
	}
	for d, n := range b.many {
		of := b.points[b.from[d]:][:n]
		to := 0
		for from := 0; from < n; from += 2 {
			if from+1 == n {
				of[to] = of[from]
				to++
				break
			}
			k++
			if of[to].addTo(&of[from], &of[from+1], &b.divisors[k]) {
				to++
			}
		}
		b.many[d] = to
	}
	return true
}

// addTo sets a to p + q, given the inverse of q.x − p.x or, where that is 0, of p.y + q.y;
// false if the sum is infinity. a may be p.
func (a *affine) addTo(p, q *affine, inverse *field) bool {
	// l is the slope: x' = l² − p.x − q.x, y' = l·(p.x − x') − p.y.
	var l, x, y field
	l.sub(&q.y, &p.y)
	if p.x.equal(&q.x) {
		if !l.isZero() {
			return false
		}
		x.square(&p.x)
		l.add(&x, &x)
		l.add(&l, &x)
	}
	l.mul(&l, inverse)
	x.square(&l)
	x.sub(&x, &p.x)
	x.sub(&x, &q.x)
	y.sub(&p.x, &x)
	y.mul(&y, &l)
	a.y.sub(&y, &p.y)
	a.x = x
	return true
}

// sum returns Σ d·(the sum of those of digit d), as a sum of sums from the greatest digit
// on.
func (b *buckets) sum() (sum point) {
	var above point
	above.inf, sum.inf = true, true
	for d := len(b.many) - 1; d > 0; d-- {
		for i := range b.many[d] {
			above.addAffine(&b.points[b.from[d]+i], nil)
		}
		sum.add(&above)
	}
	return sum
}
