"""A method in one file: how much the cosine falls when a token is set to zero."""

from mmattrib import hookimpl, methods


class Occlusion(methods.Method):
    """How much the cosine falls without a token."""

    name, unit, summary = "occlusion", "cosine", "fall of the cosine when a token is set to zero"

    def explain(self, side: methods.Side) -> methods.SideScores:
        tokens, scores = side.tokens(), side.grid().valid.float()
        for n in range(tokens.shape[1]):
            without = side.cosines(tokens.index_fill(1, tokens.new_tensor([n]).long(), 0))
            scores[:, n] = side.cosines(tokens) - without
        return self.scored(scores)


@hookimpl
def register_methods(register):
    """Register it under its name."""
    Occlusion.register(register)
