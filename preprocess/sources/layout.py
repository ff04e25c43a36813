"""Which layout a tree has, and what is read of it."""

from preprocess.sources import image_folder, table, tiny_imagenet
from preprocess.sources.records import Layout
from preprocess.sources.tree import Tree


def read_layout(tree: Tree, skip_empty: bool, without_val: bool) -> Layout:
    """Everything in the tree; DataError for whatever is not as its layout says.

    skip_empty: whether a class folder without an image is left out, or an error; without_val: whether there may be no
    validation image.
    """
    if isinstance(tree, table.TableTree):
        return table.read_layout(tree, without_val)
    if tree.has("wnids.txt"):
        return tiny_imagenet.read_layout(tree, without_val)
    return image_folder.read_layout(tree, skip_empty, without_val)
