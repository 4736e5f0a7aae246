"""Networks: the masked autoencoder, its tokens and masks, and what the tasks put on its encoder. Imports torch."""
