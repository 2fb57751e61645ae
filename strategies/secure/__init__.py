"""Secure aggregation: the coordinator learns, group by group, the sum of weighted updates and the sum of weights, and no site's own.

Every two holders of a group share a mask that one adds and the other subtracts, so that the masks cancel in the sum; every site adds a mask
of its own on top. Both are recovered, for sites that dropped out and for those that did not, from secret shares that t of the n sites hold.
Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, Figure 4, the version for an active
adversary. Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020, replace the complete graph of pairs by
a sparse one, which pays from about a hundred sites on; hospitals are fewer, so every site is every other's neighbour here. We deviate:
- Vectors are divided into groups of tensors. A group is masked among its holders, and its self-mask has a seed of its own, so that one
  group can be opened and another stay closed for good.
- A site commits to its seeds when it advertises its keys, so that a false share is noticed and not added.
- In a round a site masks for one list of invited sites and one threshold, and opens one sum of a group, over one set of sites (ledger.py).
- A site signs among whom it has masked, and only what was masked among the same sites is unmasked. Bonawitz et al. need no such signature:
  there everybody holds everything, and any two sets of t sites meet. Of a group with few holders, a site that was shown some of them, and
  is unmasked with the others, would be alone in what is left.
- A sum that clipped updates cannot have is refused (fixed_point.py).
- The terms that everybody signs name the content of the model and the rule of the weights, so that no site can be asked about another model
  (Pasquini, Francati and Ateniese, "Eluding Secure Aggregation in Federated Learning via Model Inconsistency", CCS 2022), nor be made to
  weigh so much that the sum is its update.
- With privacy the sites add noise before the masks (noisy_sum.py), and open one attempt of a round.

Threat model
    Assumed: a site knows its peers' enrolled public keys from elsewhere than the coordinator, or pins those it saw first; X25519, AES and
    ECDSA hold; a site's own process and memory are its own.
    Against a coordinator that follows the protocol and records everything, and fewer than t sites that help it: of a group they learn the
    sum over the other holders and nothing else.
    Against a coordinator that lies (false sets of survivors, keys of its own, other terms to some sites, the same round again and again),
    and c of the n invited sites that help it: the same, as long as c < 2 t - n (proof in ledger.py); for the default t of two thirds that
    is a third of the sites. n and t are those of the terms, one pair for all attempts of a round.
    At least three holders stand behind a sum (terms.minimum_holders; every site enforces it). If all of them but one help the coordinator,
    the sum minus their own parts is the last one's update: no protocol that gives a sum can prevent that.

What still leaks, with secure aggregation on
    - who holds which group, who took part, who dropped out and when, and how long each site took;
    - the counts of a site's description and report (cases, labels, pseudo-labels), from which a weight follows up to its rounding;
    - a weighted mean is mostly the update of a site that outweighs the others by far: one with most of the cases, or of the loss under
      `strategy.fairness`; with `strategy.weights: uniform` nobody does;
    - the evaluation of the received model at each site, its training losses and calibration sums, in the clear, as without it;
    - the sum itself, and its change from round to round: a site that takes part in one round and not in the next can be guessed from the
      difference as far as updates are alike over rounds (So et al., "Securing Secure Aggregation", AAAI 2023). Differential privacy is the
      remedy for that and for a coordinator that asks nearly the same question in another run.
What does not: any entry, norm or sign of a site's update, its rounding or clipping, or its weight beyond what its counts say.

Not defended: a site that sends a false update of allowed size (it cannot be looked at; norm checks and robust means need single replies and
are refused in the configuration), and denial of service: a false share, box or update fails the attempt, at worst without naming its
sender. A site's influence is bounded: an entry by the clip, a weight by the limit.

All functions are pure: bytes in, bytes out, without Flower, sockets or files.
"""
