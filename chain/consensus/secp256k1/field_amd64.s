#include "textflag.h"

// What field_generic.go does, with the instructions that multiply into any two registers
// (MULX) and that add with two carries at once (ADCX, ADOX). A processor that lacks them
// goes on there.
//
// Words of the operands are in memory, of the product in R8 to R14 and CX, r0 first. DX is
// what MULX multiplies by, AX and BX are what comes of it, the low word first.

// One word of x, in DX, times y at DI, added to the five words a0 to a4, of which a4 is
// nothing yet: the low words by one carry, the high ones by the other.
#define ROW(a0, a1, a2, a3, a4) \
	XORQ  a4, a4         \ // and no carries
	MULXQ 0(DI), AX, BX  \
	ADCXQ AX, a0         \
	ADOXQ BX, a1         \
	MULXQ 8(DI), AX, BX  \
	ADCXQ AX, a1         \
	ADOXQ BX, a2         \
	MULXQ 16(DI), AX, BX \
	ADCXQ AX, a2         \
	ADOXQ BX, a3         \
	MULXQ 24(DI), AX, BX \
	ADCXQ AX, a3         \
	ADOXQ BX, a4         \
	MOVL  $0, AX         \
	ADCXQ AX, a4

// The product modulo p: a word from r4 on is worth foldP, 2^32 + 977, times the word four
// places down. What is left above, in R12, is below 2^34 then, and taken once more; a carry
// of that leaves less than 2^67. SI is used up.
#define FOLD \
	MOVQ  $0x1000003d1, DX \
	XORQ  SI, SI         \ // and no carries
	MULXQ R12, AX, BX    \
	ADCXQ AX, R8         \
	ADOXQ BX, R9         \
	MULXQ R13, AX, BX    \
	ADCXQ AX, R9         \
	ADOXQ BX, R10        \
	MULXQ R14, AX, BX    \
	ADCXQ AX, R10        \
	ADOXQ BX, R11        \
	MULXQ CX, AX, R12    \
	ADCXQ AX, R11        \
	ADOXQ SI, R12        \
	ADCXQ SI, R12        \
	MULXQ R12, AX, BX    \
	ADDQ  AX, R8         \
	ADCQ  BX, R9         \
	ADCQ  $0, R10        \
	ADCQ  $0, R11        \
	SBBQ  AX, AX         \
	ANDQ  DX, AX         \
	ADDQ  AX, R8         \
	ADCQ  $0, R9

// x at SI times itself, not folded.
#define SQUARE \
	MOVQ  0(SI), DX      \ // products of different words, once
	MULXQ 8(SI), R9, R10 \
	MULXQ 16(SI), AX, R11 \
	ADDQ  AX, R10        \
	MULXQ 24(SI), AX, R12 \
	ADCQ  AX, R11        \
	ADCQ  $0, R12        \
	MOVQ  8(SI), DX      \
	XORQ  R13, R13       \ // and no carries
	MULXQ 16(SI), AX, BX \
	ADCXQ AX, R11        \
	ADOXQ BX, R12        \
	MULXQ 24(SI), AX, BX \
	ADCXQ AX, R12        \
	ADOXQ BX, R13        \
	MOVL  $0, AX         \
	ADCXQ AX, R13        \
	MOVQ  16(SI), DX     \
	MULXQ 24(SI), AX, R14 \
	ADDQ  AX, R13        \
	ADCQ  $0, R14        \
	XORQ  CX, CX         \ // twice, by one carry, and the squares, by the other
	MOVQ  0(SI), DX      \
	MULXQ DX, R8, AX     \
	ADCXQ R9, R9         \
	ADOXQ AX, R9         \
	MOVQ  8(SI), DX      \
	MULXQ DX, AX, BX     \
	ADCXQ R10, R10       \
	ADOXQ AX, R10        \
	ADCXQ R11, R11       \
	ADOXQ BX, R11        \
	MOVQ  16(SI), DX     \
	MULXQ DX, AX, BX     \
	ADCXQ R12, R12       \
	ADOXQ AX, R12        \
	ADCXQ R13, R13       \
	ADOXQ BX, R13        \
	MOVQ  24(SI), DX     \
	MULXQ DX, AX, BX     \
	ADCXQ R14, R14       \
	ADOXQ AX, R14        \
	ADCXQ CX, CX         \
	ADOXQ BX, CX

// func mulField(z, x, y *field)
TEXT ·mulField(SB), NOSPLIT, $0-24
	CMPB ·hasADX(SB), $0
	JEQ  generic
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DI
	MOVQ  0(SI), DX
	MULXQ 0(DI), R8, R9
	MULXQ 8(DI), AX, R10
	ADDQ  AX, R9
	MULXQ 16(DI), AX, R11
	ADCQ  AX, R10
	MULXQ 24(DI), AX, R12
	ADCQ  AX, R11
	ADCQ  $0, R12
	MOVQ  8(SI), DX
	ROW(R9, R10, R11, R12, R13)
	MOVQ  16(SI), DX
	ROW(R10, R11, R12, R13, R14)
	MOVQ  24(SI), DX
	ROW(R11, R12, R13, R14, CX)
	FOLD
	MOVQ z+0(FP), DI
	MOVQ R8, 0(DI)
	MOVQ R9, 8(DI)
	MOVQ R10, 16(DI)
	MOVQ R11, 24(DI)
	RET
generic:
	JMP ·mulFieldGeneric(SB)

// func squareField(z, x *field)
TEXT ·squareField(SB), NOSPLIT, $0-16
	CMPB ·hasADX(SB), $0
	JEQ  generic
	MOVQ x+8(FP), SI
	SQUARE
	FOLD
	MOVQ z+0(FP), DI
	MOVQ R8, 0(DI)
	MOVQ R9, 8(DI)
	MOVQ R10, 16(DI)
	MOVQ R11, 24(DI)
	RET
generic:
	JMP ·squareFieldGeneric(SB)
