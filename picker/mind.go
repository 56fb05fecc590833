package picker

// mind is what policies have learnt of an endpoint from requests. It is kept
// beside the endpoint, so that it survives every rebuild and reload.
type mind struct{}
