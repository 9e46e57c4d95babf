package host

// Announced is announced, for tests.
var Announced = announced
