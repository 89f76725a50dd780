"""vicarious: does an agent with a purely selfish reward come to value what happens to others?

Data flows one way:

    world -> episodes -> world model (frozen) -> heads -> stimuli -> responses -> metrics -> predictions -> book

Legend of tensor shapes, used in every comment and docstring of the package:

    B  batch of episodes or scenes      T  frames in a sequence         M  bodies (0 = self, 1 = other)
    H W C  grid height, width, channels N  cells in one chamber         K  item kinds (ranks of the ladder)
    F  flattened observation H*W*C      D  latent width                 A  actions (stay, up, down, left, right)

Units: reward (own return, undiscounted per frame), frames (time), cells (space), nats (likelihoods).
"""

__version__ = "0.1.0"
