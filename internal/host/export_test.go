package host

// Announced is announced, for tests.
var Announced = announced

// RankDials is the order in which a peer's addresses are dialled.
var RankDials = rankDials
